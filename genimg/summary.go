package genimg

// Summary is what a set takes, known before any of it is made.
type Summary struct {
	Classes []ClassSummary `json:"classes"` // small to xlarge
	Images  int            `json:"images"`
	Bytes   int64          `json:"bytes"`
}

// ClassSummary is one class of a set. Pixels are the least and the greatest side in it, 0 when it
// has no image.
type ClassSummary struct {
	Class     string `json:"class"`
	Images    int    `json:"images"`
	Bytes     int64  `json:"bytes"`
	MinPixels int    `json:"min_pixels"`
	MaxPixels int    `json:"max_pixels"`
}

// Summary adds up the images 1 to count.
func (s Spec) Summary(count int) Summary {
	sum := Summary{Classes: make([]ClassSummary, len(classNames))}
	for i, name := range classNames {
		sum.Classes[i].Class = name
	}
	for n := 1; n <= count; n++ {
		im := s.Image(n)
		sum.Images++
		sum.Bytes += im.Size
		sum.Classes[n&3].add(im)
	}
	return sum
}

func (c *ClassSummary) add(im Image) {
	if c.Images == 0 {
		c.MinPixels = im.Pixels
	}
	c.Images++
	c.Bytes += im.Size
	c.MinPixels = min(c.MinPixels, im.Pixels)
	c.MaxPixels = max(c.MaxPixels, im.Pixels)
}

// Average returns the bytes of the average image, 0 for an empty set.
func (s Summary) Average() int64 {
	if s.Images == 0 {
		return 0
	}
	return s.Bytes / int64(s.Images)
}

// Broadcast returns the bytes that sending every image to each of some nodes takes.
func (s Summary) Broadcast(nodes int) int64 { return s.Bytes * int64(nodes) }
