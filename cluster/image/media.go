package image

import (
	"path"
	"strings"
)

// mediaType is the type that a file name's extension stands for.
type mediaType struct {
	name   string
	raster bool // pixels and nothing that a browser would run
}

// TypeBytesMax bounds a Content-Type.
const TypeBytesMax = 255

// DefaultMediaType is that of an image of which nothing is known.
const DefaultMediaType = "application/octet-stream"

// mediaTypes are by extension, in lower case. Names are IANA's where it has one, else the common ones.
// The table is here, and not the host's, so that every node has the same.
var mediaTypes = map[string]mediaType{
	".apng": {"image/apng", true},
	".arw":  {"image/x-sony-arw", true},
	".avif": {"image/avif", true},
	".bmp":  {"image/bmp", true},
	".cr2":  {"image/x-canon-cr2", true},
	".cr3":  {"image/x-canon-cr3", true},
	".crw":  {"image/x-canon-crw", true},
	".dcm":  {"application/dicom", false},
	".dib":  {"image/bmp", true},
	".dng":  {"image/x-adobe-dng", true},
	".emf":  {"image/emf", false},
	".erf":  {"image/x-epson-erf", true},
	".exr":  {"image/x-exr", true},
	".fits": {"image/fits", true},
	".gif":  {"image/gif", true},
	".hdr":  {"image/vnd.radiance", true},
	".heic": {"image/heic", true},
	".heif": {"image/heif", true},
	".hif":  {"image/heif", true},
	".ico":  {"image/vnd.microsoft.icon", true},
	".iiq":  {"image/x-phaseone-iiq", true},
	".j2c":  {"image/j2c", true},
	".j2k":  {"image/j2c", true},
	".jfif": {"image/jpeg", true},
	".jp2":  {"image/jp2", true},
	".jpc":  {"image/j2c", true},
	".jpe":  {"image/jpeg", true},
	".jpeg": {"image/jpeg", true},
	".jpf":  {"image/jpx", true},
	".jpg":  {"image/jpeg", true},
	".jpm":  {"image/jpm", true},
	".jpx":  {"image/jpx", true},
	".jxl":  {"image/jxl", true},
	".jxr":  {"image/jxr", true},
	".kdc":  {"image/x-kodak-kdc", true},
	".ktx":  {"image/ktx", true},
	".ktx2": {"image/ktx2", true},
	".mef":  {"image/x-mamiya-mef", true},
	".mrw":  {"image/x-minolta-mrw", true},
	".nef":  {"image/x-nikon-nef", true},
	".nrw":  {"image/x-nikon-nrw", true},
	".orf":  {"image/x-olympus-orf", true},
	".pbm":  {"image/x-portable-bitmap", true},
	".pcx":  {"image/vnd.zbrush.pcx", true},
	".pef":  {"image/x-pentax-pef", true},
	".pgm":  {"image/x-portable-graymap", true},
	".png":  {"image/png", true},
	".pnm":  {"image/x-portable-anymap", true},
	".ppm":  {"image/x-portable-pixmap", true},
	".psb":  {"image/vnd.adobe.photoshop", true},
	".psd":  {"image/vnd.adobe.photoshop", true},
	".qoi":  {"image/qoi", true},
	".raf":  {"image/x-fuji-raf", true},
	".rw2":  {"image/x-panasonic-rw2", true},
	".rwl":  {"image/x-leica-rwl", true},
	".sr2":  {"image/x-sony-sr2", true},
	".srf":  {"image/x-sony-srf", true},
	".srw":  {"image/x-samsung-srw", true},
	".svg":  {"image/svg+xml", false},
	".svgz": {"image/svg+xml", false},
	".tga":  {"image/x-tga", true},
	".tif":  {"image/tiff", true},
	".tiff": {"image/tiff", true},
	".wbmp": {"image/vnd.wap.wbmp", true},
	".webp": {"image/webp", true},
	".wmf":  {"image/wmf", false},
	".x3f":  {"image/x-sigma-x3f", true},
	".xcf":  {"image/x-xcf", true},
}

var rasterTypes = func() map[string]bool {
	set := map[string]bool{}
	for _, m := range mediaTypes {
		if m.raster {
			set[m.name] = true
		}
	}
	return set
}()

// MediaType is the Content-Type of an image: the one that its client sent, else that of its name's extension.
func (r *Record) MediaType() string {
	if r.Type != "" {
		return r.Type
	}
	if m, ok := mediaTypes[strings.ToLower(path.Ext(r.Name))]; ok {
		return m.name
	}
	return DefaultMediaType
}

// IsRaster reports whether a browser may show what has this Content-Type: pixels, never a document.
func IsRaster(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return rasterTypes[strings.ToLower(strings.TrimSpace(media))]
}
