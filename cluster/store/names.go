package store

import (
	"fmt"
	"strings"

	"imgcluster/cluster/image"
)

const (
	imagesDir    = "images"
	tmpDir       = imagesDir + "/tmp"
	imgSuffix    = ".img"
	tmpSuffix    = ".tmp"
	foldersCount = 256
)

// folderNumber returns the folder of an image: the time in its ID in steps of 4.096 s, of which the 256
// folders have one after the other.
func folderNumber(id image.ID) byte { return id[3]<<4 | id[4]>>4 }

func folder(n byte) string            { return fmt.Sprintf("%s/%02x", imagesDir, n) }
func folderOf(f image.FileID) string  { return folder(folderNumber(f.Image)) }
func tmpPathOf(f image.FileID) string { return tmpDir + "/" + f.String() + tmpSuffix }
func isTmp(name string) bool          { return strings.HasSuffix(name, tmpSuffix) }

// PathOf returns the path of a committed file in the data directory.
func PathOf(f image.FileID) string { return folderOf(f) + "/" + f.String() + imgSuffix }

// parseName parses a file's name and reports whether it has exactly the form that the store writes: it
// must not remove files that it did not write.
func parseName(name, suffix string) (image.FileID, bool) {
	stem, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return image.FileID{}, false
	}
	f, err := image.ParseFileID(stem)
	return f, err == nil
}
