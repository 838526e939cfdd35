package image_test

import (
	"mime"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

func TestMediaTypes(t *testing.T) {
	for ext, want := range map[string]string{
		"jpg":  "image/jpeg",
		"jpeg": "image/jpeg",
		"JPE":  "image/jpeg",
		"png":  "image/png",
		"gif":  "image/gif",
		"webp": "image/webp",
		"tif":  "image/tiff",
		"tiff": "image/tiff",
		"bmp":  "image/bmp",
		"heic": "image/heic",
		"heif": "image/heif",
		"avif": "image/avif",
		"jxl":  "image/jxl",
		"jp2":  "image/jp2",
		"jpx":  "image/jpx",
		"ico":  "image/vnd.microsoft.icon",
		"psd":  "image/vnd.adobe.photoshop",
		"dng":  "image/x-adobe-dng",
		"cr2":  "image/x-canon-cr2",
		"cr3":  "image/x-canon-cr3",
		"nef":  "image/x-nikon-nef",
		"arw":  "image/x-sony-arw",
		"orf":  "image/x-olympus-orf",
		"raf":  "image/x-fuji-raf",
		"rw2":  "image/x-panasonic-rw2",
		"pef":  "image/x-pentax-pef",
		"srw":  "image/x-samsung-srw",
		"x3f":  "image/x-sigma-x3f",
	} {
		r := image.Record{Name: "folder.html/a." + ext}
		got := r.MediaType()
		if _, _, err := mime.ParseMediaType(got); err != nil || got != want || !image.IsRaster(got) ||
			!image.IsRaster(strings.ToUpper(got)+" ; q=1") {
			t.Errorf("%s is %q", ext, got)
		}
		if r.Type = "text/html"; r.MediaType() != "text/html" {
			t.Errorf("%s is %q, not as its client sent it", ext, r.MediaType())
		}
	}
	for _, name := range []string{
		"a", "a.txt", "a.html", "a.js", "a.xml", "a.png.gz", "png", "a.", "a.png/b",
	} {
		if got := (&image.Record{Name: name}).MediaType(); got != image.DefaultMediaType {
			t.Errorf("%s is %q", name, got)
		}
	}
	for _, media := range []string{
		"", "image/svg+xml", "IMAGE/SVG+XML", "text/html", "application/pdf", "application/octet-stream",
		"image/png/x", "image/pngx", "image/",
	} {
		if image.IsRaster(media) {
			t.Errorf("a browser may show %q", media)
		}
	}
}
