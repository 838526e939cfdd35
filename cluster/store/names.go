package store

import (
	"fmt"
	"strconv"
	"strings"

	"imgcluster/cluster/image"
)

const (
	imagesDir    = "images"
	tmpDir       = imagesDir + "/tmp"
	imgSuffix    = ".img"
	tmpSuffix    = ".tmp"
	foldersCount = 256
	idChars      = 36 // length of an image ID's text form
)

// key names one copy: an upload stored in one epoch.
type key struct {
	id    image.ID
	epoch uint32
}

func (k key) String() string  { return k.id.String() + "-" + strconv.FormatUint(uint64(k.epoch), 10) }
func (k key) path() string    { return folder(k.id[15]) + "/" + k.String() + imgSuffix }
func (k key) tmpPath() string { return tmpDir + "/" + k.String() + tmpSuffix }
func (k key) folder() string  { return folder(k.id[15]) }
func folder(last byte) string { return fmt.Sprintf("%s/%02x", imagesDir, last) }
func isTmp(name string) bool  { return strings.HasSuffix(name, tmpSuffix) }

// parseName parses a file's name and reports whether it has exactly the form that the store writes: it
// must not remove files that it did not write.
func parseName(name, suffix string) (key, bool) {
	stem, ok := strings.CutSuffix(name, suffix)
	if !ok || len(stem) < idChars+2 {
		return key{}, false
	}
	id, err := image.ParseID(stem[:idChars])
	if err != nil {
		return key{}, false
	}
	epoch, err := strconv.ParseUint(stem[idChars+1:], 10, 32)
	k := key{id, uint32(epoch)}
	return k, err == nil && k.String() == stem
}
