package record

import (
	"math"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// object appends the members of one JSON object (RFC 8259) to line. Each method
// appends one member and returns the longer object; a key must need no escaping. An object
// is passed by value, as a slice is, because a pointer to it costs a third of the encoder's
// speed.
//
// The methods write their keys through the method key. A few keys do not pass through it: those
// that every record begins with (begin, appendSeq), labels, and the names of features, which are
// an object inside the record.
type object struct {
	line []byte
}

// key returns line with the key of the next member.
func (o object) key(key string) []byte {
	o.line = append(o.line, `,"`...)
	o.line = append(o.line, key...)
	return append(o.line, `":`...)
}

// string escapes v as [appendString] does.
func (o object) string(key, v string) object {
	o.line = appendString(o.key(key), v)
	return o
}

// stringIfSet appends nothing if v is empty.
func (o object) stringIfSet(key, v string) object {
	if v != "" {
		return o.string(key, v)
	}
	return o
}

// bytes appends v as a string, escaped as [appendString] does.
func (o object) bytes(key string, v []byte) object {
	o.line = appendString(o.key(key), v)
	return o
}

// literal appends a string that needs no escaping, such as a name from a table.
func (o object) literal(key, v string) object {
	o.line = append(o.key(key), '"')
	o.line = append(o.line, v...)
	o.line = append(o.line, '"')
	return o
}

// literalIfSet appends nothing if v is empty.
func (o object) literalIfSet(key, v string) object {
	if v != "" {
		return o.literal(key, v)
	}
	return o
}

// trueIf appends the value true, or nothing if set is false.
func (o object) trueIf(key string, set bool) object {
	if set {
		o.line = append(o.key(key), "true"...)
	}
	return o
}

func (o object) uint(key string, v uint64) object {
	o.line = appendUint(o.key(key), v)
	return o
}

// uintIfSet appends nothing if v is 0.
func (o object) uintIfSet(key string, v uint64) object {
	if v != 0 {
		return o.uint(key, v)
	}
	return o
}

// decimal rounds to at most three digits after the point. v must be finite.
func (o object) decimal(key string, v float64) object {
	const thousandths = 1000
	o.line = strconv.AppendFloat(o.key(key), math.Round(v*thousandths)/thousandths, 'f', -1, 64)
	return o
}

// hex appends a string of hexadecimal digits without leading zeros.
func (o object) hex(key string, v uint64) object {
	o.line = append(o.key(key), '"')
	o.line = strconv.AppendUint(o.line, v, 16)
	o.line = append(o.line, '"')
	return o
}

// addrIfSet appends nothing if a is not valid.
func (o object) addrIfSet(key string, a netip.Addr) object {
	if a.IsValid() {
		o.line = append(o.key(key), '"')
		o.line = a.AppendTo(o.line)
		o.line = append(o.line, '"')
	}
	return o
}

// time appends at in the form of [timeCache]. Each key should have a cache of its own:
// successive times of one key mostly lie in the same second.
func (o object) time(key string, cache *timeCache, at time.Time) object {
	o.line = append(o.key(key), '"')
	o.line = cache.append(o.line, at)
	o.line = append(o.line, '"')
	return o
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string (RFC 8259 section 7). Bytes that are not UTF-8
// become U+FFFD, as in encoding/json. What is not visible is escaped too, although JSON does
// not require it: some terminals obey DEL and C1, some readers split lines at the separators,
// and a name with a bidirectional or zero-width character looks like another one.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	copied := 0 // s[:copied] is appended; s[copied:i] needs no escaping
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[copied:i]...)
		if c < utf8.RuneSelf {
			dst = appendEscapedASCII(dst, c)
			i++
		} else {
			r, size := decodeRune(s, i)
			dst = appendNonASCII(dst, r, s[i:i+size])
			i += size
		}
		copied = i
	}
	dst = append(dst, s[copied:]...)
	return append(dst, '"')
}

// decodeRune decodes the rune at s[i:]. It copies only the bytes of that rune, because a
// conversion of the whole string would allocate.
func decodeRune[S string | []byte](s S, i int) (rune, int) {
	var b [utf8.UTFMax]byte
	n := copy(b[:], s[i:])
	return utf8.DecodeRune(b[:n])
}

// appendNonASCII appends the rune r as it is encoded, or escaped where it has to be.
func appendNonASCII[S string | []byte](dst []byte, r rune, encoded S) []byte {
	switch {
	case r == utf8.RuneError && len(encoded) == 1:
		return append(dst, `\ufffd`...)
	case isVisible(r):
		return append(dst, encoded...)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return appendEscaped(appendEscaped(dst, uint16(high)), uint16(low))
	}
	return appendEscaped(dst, uint16(r))
}

func appendEscapedASCII(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, `\n`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return appendEscaped(dst, uint16(c))
}

// appendEscaped appends \uXXXX.
func appendEscaped(dst []byte, r uint16) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
