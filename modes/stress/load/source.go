package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/genimg"
)

// Source has the images of a run by their number, from 1. It is used by many goroutines at once.
type Source interface {
	// Open returns image n, in mem if it takes memory. With an error it returns as much of the image as is
	// known.
	Open(ctx context.Context, n int64, mem *Memory) (Image, error)
}

// Image is an image ready for upload. Each call of Body returns a new reader of all of it. Close, if not
// nil, is called after the upload.
type Image struct {
	Name, Class string
	Size        int64
	Body        func() io.Reader
	Close       func() error
}

// Generated is a Source that generates images in memory when they are needed.
type Generated struct{ Spec genimg.Spec }

// Open implements Source.
func (g Generated) Open(ctx context.Context, n int64, mem *Memory) (Image, error) {
	generated := g.Spec.Image(int(n))
	img := Image{Name: generated.Name, Class: generated.Class, Size: generated.Size}
	buf, err := mem.Take(ctx, generated.Size)
	if err != nil {
		return img, err
	}
	data := generated.AppendTo(buf[:0])
	img.Body = func() io.Reader { return bytes.NewReader(data) }
	return img, nil
}

// Files is a Source of the files in and below a folder, in the order of their names. They are read as
// they are sent, not held in memory. After the last file a new round begins, whose images have other
// names: "2/NAME" in the second round.
type Files struct {
	dir         string
	roundPrefix string // before the number of a round
	files       []file
	bytes       int64    // of all files
	leftOut     []string // what is not sent, and why
}

type file struct {
	name string // from dir, with slashes
	size int64
}

// fileClass is the class of images that were not generated.
const fileClass = "file"

// OpenFiles returns the Source of the files in and below dir, each of at most so many bytes. Links to
// files are followed. LeftOut returns what else is there. It is an error when there is nothing to send.
func OpenFiles(dir string, bytesMax int64) (*Files, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, invalidf("give --images a folder of images", "%s is not a folder", dir)
	}
	f := &Files{dir: dir}
	err := filepath.WalkDir(dir+string(filepath.Separator), func(path string, e fs.DirEntry, err error) error {
		name, bad := filepath.Rel(dir, path)
		switch {
		case bad != nil:
			return bad
		case err != nil && name == ".":
			return invalidf("give --images a folder of images that can be read, or leave it out to generate them",
				"the folder of images cannot be read: %w", err)
		case err == nil && e.IsDir():
			return nil
		case err == nil:
			err = f.add(filepath.ToSlash(name), path, bytesMax)
		}
		if err != nil {
			f.leftOut = append(f.leftOut, leftOutText(path, err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(f.files) == 0 {
		what := "has no files"
		if len(f.leftOut) > 0 {
			what = "has no file that can be sent: " + strings.Join(few(f.leftOut), "; ")
		}
		return nil, invalidf("fill it with: imgcluster generate --out "+printable.Argument(dir), "%s %s", dir, what)
	}
	for slices.ContainsFunc(f.files, func(x file) bool { return f.clashes(x.name) }) {
		f.roundPrefix += "_"
	}
	return f, nil
}

// add adds a file, or returns why it cannot be sent.
func (f *Files) add(name, path string, bytesMax int64) error {
	if err := image.CheckName(name); err != nil {
		return fmt.Errorf("cannot be an image: %w", err)
	}
	size, err := Readable(path, bytesMax)
	if err != nil {
		return err
	}
	f.files = append(f.files, file{name, size})
	f.bytes += size
	return nil
}

// Readable returns the size of a file, or why it cannot be sent.
func Readable(path string, bytesMax int64) (int64, error) {
	info, err := os.Stat(path) // before Open, which would block on a pipe
	switch {
	case err != nil:
		return 0, err
	case info.IsDir():
		return 0, errors.New("is a folder")
	case !info.Mode().IsRegular():
		return 0, ErrNoFile
	case info.Size() == 0:
		return 0, errors.New("is empty")
	case info.Size() > bytesMax:
		return 0, fmt.Errorf("has %d bytes, limits.image_bytes allows %d", info.Size(), bytesMax)
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), f.Close()
}

// ErrNoFile is the error of a pipe, a socket or a device.
var ErrNoFile = errors.New("is not a file")

// leftOutText names a file and why it cannot be sent.
func leftOutText(path string, err error) string {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		return path + ": " + at.Err.Error()
	}
	return path + " " + err.Error()
}

// leftOutMax is how many of the files that were left out are named.
const leftOutMax = 20

// few returns the first leftOutMax of a list, and how many more there are.
func few(list []string) []string {
	if len(list) <= leftOutMax {
		return list
	}
	return append(slices.Clone(list[:leftOutMax]), fmt.Sprintf("and %d more", len(list)-leftOutMax))
}

// LeftOut returns how many entries of the folder are not sent, and for the first of them which and why.
func (f *Files) LeftOut() (count int, named []string) { return len(f.leftOut), few(f.leftOut) }

// clashes reports whether the name of a file may be that of another one in a later round.
func (f *Files) clashes(name string) bool {
	folder, _, nested := strings.Cut(name, "/")
	number, isRound := strings.CutPrefix(folder, f.roundPrefix)
	_, err := strconv.ParseInt(number, 10, 64)
	return nested && isRound && err == nil
}

// Len returns the number of files.
func (f *Files) Len() int { return len(f.files) }

// Has reports whether a file is one of them.
func (f *Files) Has(info os.FileInfo) bool {
	return slices.ContainsFunc(f.files, func(x file) bool {
		own, err := os.Stat(filepath.Join(f.dir, filepath.FromSlash(x.name)))
		return err == nil && os.SameFile(own, info)
	})
}

// Bytes returns the size of the first n images.
func (f *Files) Bytes(n int64) int64 {
	files := int64(len(f.files))
	sum := n / files * f.bytes
	for _, x := range f.files[:n%files] {
		sum += x.size
	}
	return sum
}

// Open implements Source.
func (f *Files) Open(_ context.Context, n int64, _ *Memory) (Image, error) {
	files := int64(len(f.files))
	round := (n-1)/files + 1
	name := f.files[(n-1)%files].name
	img := Image{Name: name, Class: fileClass}
	if round > 1 {
		img.Name = fmt.Sprintf("%s%d/%s", f.roundPrefix, round, name)
	}
	file, err := os.Open(filepath.Join(f.dir, filepath.FromSlash(name)))
	if err != nil {
		return img, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return img, err
	}
	img.Size = info.Size()
	img.Close = file.Close
	img.Body = func() io.Reader { return io.NewSectionReader(file, 0, img.Size) }
	return img, nil
}
