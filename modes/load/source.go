package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"imgcluster/cluster/image"
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

// Files is a Source of the files of one folder, in the order of their names. They are read as they
// are sent, not held in memory. When all have had their turn it starts over, under other names: the
// second round's are "2/NAME", so that every upload is an image of its own.
type Files struct {
	dir   string
	names []string
}

// fileClass is the class of images that were not generated.
const fileClass = "file"

// OpenFiles returns the Source of the regular files in dir. Folders and links in it are passed over.
func OpenFiles(dir string) (*Files, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, image.Errorf(image.KindInvalid, "the folder of images cannot be read: %w", err).
			WithHint("give --images a folder of images, or leave it out to generate them")
	}
	f := &Files{dir: dir}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, image.Errorf(image.KindInvalid, "an image cannot be read: %w", err).WithHint("leave the folder as it is during the run")
		}
		if info.Size() == 0 {
			return nil, image.Errorf(image.KindInvalid, "%s is empty", filepath.Join(dir, e.Name())).WithHint("take it out of the folder")
		}
		if err := image.CheckName(e.Name()); err != nil {
			return nil, err
		}
		f.names = append(f.names, e.Name())
	}
	if len(f.names) == 0 {
		return nil, image.Errorf(image.KindInvalid, "%s has no files", dir).WithHint("fill it with: imgcluster generate --out " + dir)
	}
	return f, nil
}

// Len returns the number of files.
func (f *Files) Len() int { return len(f.names) }

// Open implements Source.
func (f *Files) Open(_ context.Context, n int64, _ *Memory) (Image, error) {
	round, at := (n-1)/int64(len(f.names))+1, (n-1)%int64(len(f.names))
	img := Image{Name: f.names[at], Class: fileClass}
	if round > 1 {
		img.Name = fmt.Sprintf("%d/%s", round, img.Name)
	}
	file, err := os.Open(filepath.Join(f.dir, f.names[at]))
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
