package runlog

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// Form is the encoding of a log.
type Form string

// The forms that are read. Stress writes FormPlain.
const (
	FormPlain Form = ""
	FormMark  Form = "UTF-8 with a byte order mark"
	FormGzip  Form = "gzip"
)

// unpackedMax is the largest size of a log that comes compressed: twenty times that of a million uploads.
const unpackedMax = 8 << 30

// The first bytes of files in another form. In UTF-16, half of a character that JSON begins with is a zero.
var (
	byteOrderMark = []byte("\xef\xbb\xbf")
	gzipMagic     = []byte("\x1f\x8b")
	utf16Begins   = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff"), []byte("{\x00"), []byte("\x00{")}
)

// Plain returns a log as stress wrote it, from any of the forms. A log in UTF-16 is ErrEncoding; damaged
// compressed data is ErrCompressed, from the reader. Both are *ReadError.
func Plain(r io.Reader) (*bufio.Reader, Form, error) {
	in, form := bufio.NewReaderSize(r, lineBytesMax), FormPlain
	begin, _ := in.Peek(len(byteOrderMark)) // an error comes back at the first read
	if bytes.HasPrefix(begin, gzipMagic) {
		unpacked := &gunzip{packed: in, left: unpackedMax}
		in, form = bufio.NewReaderSize(unpacked, lineBytesMax), FormGzip
		begin, _ = in.Peek(len(byteOrderMark))
	}
	for _, mark := range utf16Begins {
		if bytes.HasPrefix(begin, mark) {
			return nil, form, &ReadError{
				Line: 1, Err: ErrEncoding, Detail: "it is text in UTF-16, as some shells write it",
				hint: "make UTF-8 of it: iconv -f UTF-16 -t UTF-8 LOG > utf8.jsonl",
			}
		}
	}
	if bytes.HasPrefix(begin, byteOrderMark) {
		in.Discard(len(byteOrderMark)) // is in the buffer
		if form == FormPlain {
			form = FormMark
		}
	}
	return in, form, nil
}

// gunzip unpacks up to a limit, and returns damaged data as a *ReadError.
type gunzip struct {
	packed io.Reader
	in     *gzip.Reader // nil before the first Read
	left   int64        // bytes up to the limit
	err    error        // the first, which every later Read returns
}

func (g *gunzip) Read(p []byte) (n int, err error) {
	if g.in == nil && g.err == nil {
		g.in, g.err = gzip.NewReader(g.packed)
	}
	switch {
	case g.err != nil:
	case g.left <= 0:
		g.err = &ReadError{
			Err: ErrCompressed, Detail: fmt.Sprintf("it unpacks to more than %d bytes", unpackedMax),
			hint: "unpack it first: gzip -d LOG",
		}
	default:
		n, g.err = g.in.Read(p[:min(int64(len(p)), g.left)])
		g.left -= int64(n)
	}
	g.err = compressedError(g.err)
	return n, g.err
}

// compressedError returns an error about damaged data as a *ReadError, and others as they are.
func compressedError(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	cutOff := errors.Is(err, io.ErrUnexpectedEOF)
	if corrupt || cutOff || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return &ReadError{
			Err: ErrCompressed, Detail: "the compressed data is truncated or damaged: " + err.Error(),
			hint: "compress the log again, or report on what can be unpacked: gzip -dc LOG > part.jsonl",
		}
	}
	return err
}
