package recording

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// otherCompressions are the compressions that Decompress refuses: the first bytes of their files, and the command that
// decompresses them.
var otherCompressions = []struct{ name, magic, command string }{
	{"zstd", "\x28\xb5\x2f\xfd", "zstd -dc"},
	{"xz", "\xfd7zXZ\x00", "xz -dc"},
	{"bzip2", "BZh", "bzip2 -dc"},
	{"lz4", "\x04\x22\x4d\x18", "lz4 -dc"},
}

// byteOrderMark is U+FEFF in UTF-8, with which some editors begin a file.
const byteOrderMark = "\ufeff"

// Decompress returns the content of a file that is plain or compressed with gzip, without a byte order mark, with a buffer of
// size bytes. It fails if r fails, if r begins like a gzip file and is not one, or if it has another compression. Use
// [IsCutOff] for the errors of the content.
func Decompress(r io.Reader, size int) (*bufio.Reader, error) {
	content := bufio.NewReaderSize(r, size)
	begin, err := content.Peek(len("\xfd7zXZ\x00")) // fewer bytes are none of these
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for _, c := range otherCompressions {
		if bytes.HasPrefix(begin, []byte(c.magic)) {
			return nil, fmt.Errorf("it is compressed with %s: decompress it first, such as with '%s FILE'", c.name, c.command)
		}
	}
	if bytes.HasPrefix(begin, []byte("\x1f\x8b")) {
		unzipped, err := gzip.NewReader(content)
		if err != nil {
			return nil, fmt.Errorf("it begins like a gzip file, but is not one: %w", err)
		}
		content = bufio.NewReaderSize(unzipped, size)
	}
	if begin, _ := content.Peek(len(byteOrderMark)); string(begin) == byteOrderMark {
		_, _ = content.Discard(len(byteOrderMark)) // they are in the buffer
	}
	return content, nil
}

// IsCutOff reports whether an error of reading the content means that the compressed file is not complete, or damaged. What
// was read before the error is good.
func IsCutOff(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) ||
		errors.As(err, new(flate.CorruptInputError))
}
