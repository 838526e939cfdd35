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

// Source gives the images of a run by their number, from 1. It is used by many goroutines at once.
type Source interface {
	// Open readies image n, in mem when it needs memory. With an error the image says what is known.
	Open(ctx context.Context, n int64, mem *Memory) (Image, error)
}

// Image is one image ready for upload. Body gives a new reader of all of it at each call. Close, if
// not nil, is called after the upload.
type Image struct {
	Name, Class string
	Size        int64
	Body        func() io.Reader
	Close       func() error
}

// Generated is a Source that makes images in memory as they are needed.
type Generated struct{ Spec genimg.Spec }

// Open implements Source.
func (g Generated) Open(ctx context.Context, n int64, mem *Memory) (Image, error) {
	made := g.Spec.Image(int(n))
	img := Image{Name: made.Name, Class: made.Class, Size: made.Size}
	buf, err := mem.Take(ctx, made.Size)
	if err != nil {
		return img, err
	}
	data := made.AppendTo(buf[:0])
	img.Body = func() io.Reader { return bytes.NewReader(data) }
	return img, nil
}

// Files is a Source of the files in a folder and the folders in it, in the order of their names. They
// are read as they are sent, not held in memory. When all have had their turn it starts over, under
// other names: the second round's are "2/NAME", so that every upload is an image of its own.
type Files struct {
	dir   string
	again string // what goes before the round's number
	files []file
	bytes int64    // of all
	left  []string // what was left out, and why
}

type file struct {
	name string // from dir, with slashes
	size int64
}

// fileClass is the class of images that were not generated.
const fileClass = "file"

// OpenFiles returns the Source of the files in and below dir, each of at most so many bytes, also those
// that a link leads to. LeftOut tells what else is there; that there is nothing to send is an error.
func OpenFiles(dir string, bytesMax int64) (*Files, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, image.Errorf(image.KindInvalid, "%s is not a folder", dir).WithHint("give --images a folder of images")
	}
	f := &Files{dir: dir}
	err := filepath.WalkDir(dir+string(filepath.Separator), func(path string, e fs.DirEntry, err error) error {
		name, bad := filepath.Rel(dir, path)
		switch {
		case bad != nil:
			return bad
		case err != nil && name == ".":
			return image.Errorf(image.KindInvalid, "the folder of images cannot be read: %w", err).
				WithHint("give --images a folder of images that can be read, or leave it out to generate them")
		case err == nil && e.IsDir():
			return nil
		case err == nil:
			err = f.add(filepath.ToSlash(name), path, bytesMax)
		}
		if err != nil {
			f.left = append(f.left, told(path, err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(f.files) == 0 {
		what := "has no files"
		if len(f.left) > 0 {
			what = "has no file that can be sent: " + strings.Join(few(f.left), "; ")
		}
		return nil, image.Errorf(image.KindInvalid, "%s %s", dir, what).WithHint("fill it with: imgcluster generate --out " + printable.Argument(dir))
	}
	for slices.ContainsFunc(f.files, func(x file) bool { return f.clashes(x.name) }) {
		f.again += "_"
	}
	return f, nil
}

// add looks at a file and takes it in, or says why not.
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

// Readable returns the size of a file that can be sent, or why it cannot.
func Readable(path string, bytesMax int64) (int64, error) {
	info, err := os.Stat(path) // before Open, which would wait on a pipe
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

// ErrNoFile is of a pipe, a socket or a device.
var ErrNoFile = errors.New("is not a file")

// told says what is wrong with a file.
func told(path string, err error) string {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		return path + ": " + at.Err.Error()
	}
	return path + " " + err.Error()
}

// leftOutMax is how many of the files that were left out are named.
const leftOutMax = 20

// few cuts a list short, and says so.
func few(list []string) []string {
	if len(list) <= leftOutMax {
		return list
	}
	return append(slices.Clone(list[:leftOutMax]), fmt.Sprintf("and %d more", len(list)-leftOutMax))
}

// LeftOut tells how many things in the folder are not sent, and of the first of them which and why.
func (f *Files) LeftOut() (count int, named []string) { return len(f.left), few(f.left) }

// clashes reports whether a file may have the name of another one in a later round.
func (f *Files) clashes(name string) bool {
	folder, _, nested := strings.Cut(name, "/")
	number, isRound := strings.CutPrefix(folder, f.again)
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
	rounds, rest := n/int64(len(f.files)), n%int64(len(f.files))
	sum := rounds * f.bytes
	for _, x := range f.files[:rest] {
		sum += x.size
	}
	return sum
}

// Open implements Source.
func (f *Files) Open(_ context.Context, n int64, _ *Memory) (Image, error) {
	round, at := (n-1)/int64(len(f.files))+1, (n-1)%int64(len(f.files))
	img := Image{Name: f.files[at].name, Class: fileClass}
	if round > 1 {
		img.Name = fmt.Sprintf("%s%d/%s", f.again, round, img.Name)
	}
	file, err := os.Open(filepath.Join(f.dir, filepath.FromSlash(f.files[at].name)))
	if err != nil {
		return img, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return img, err
	}
	img.Size, img.Close = info.Size(), file.Close
	img.Body = func() io.Reader { return io.NewSectionReader(file, 0, img.Size) }
	return img, nil
}
