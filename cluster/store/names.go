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

func folder(last byte) string         { return fmt.Sprintf("%s/%02x", imagesDir, last) }
func folderOf(f image.FileID) string  { return folder(f.Image[15]) }
func pathOf(f image.FileID) string    { return folderOf(f) + "/" + f.String() + imgSuffix }
func tmpPathOf(f image.FileID) string { return tmpDir + "/" + f.String() + tmpSuffix }
func isTmp(name string) bool          { return strings.HasSuffix(name, tmpSuffix) }

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
