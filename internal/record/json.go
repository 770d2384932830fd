package record

import "unicode/utf8"

// object appends the members of one flat JSON object; the first method called
// must be of [NDJSON.begin], the last end. Keys are written as they are: they must
// need no escaping.
type object []byte

func (o object) end(labels []byte) []byte {
	o = append(o, labels...)
	return append(o, "}\n"...)
}

func (o object) key(key string) object {
	o = append(o, `,"`...)
	o = append(o, key...)
	return append(o, `":`...)
}

func (o object) uint(key string, v uint64) object {
	return appendUint(o.key(key), v)
}

func (o object) yes(key string) object {
	return append(o.key(key), "true"...)
}

func (o object) string(key, v string) object {
	return appendString(o.key(key), v)
}

// known leaves out what is empty.
func (o object) known(key, v string) object {
	if v == "" {
		return o
	}
	return o.string(key, v)
}

// symbol is for values that are known to need no escaping.
func (o object) symbol(key, v string) object {
	o = append(o.key(key), '"')
	o = append(o, v...)
	return append(o, '"')
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string (RFC 8259 section 7). Bytes that are not
// UTF-8 become U+FFFD, as encoding/json has it; DEL and the C1 controls, which
// JSON would allow, are escaped as well, because some terminals obey them.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		if n := plain(s[i:]); n > 0 {
			dst = append(dst, s[i:i+n]...)
			i += n
			continue
		}
		if c := s[i]; c < utf8.RuneSelf {
			dst = appendASCII(dst, c)
			i++
			continue
		}
		r, size := decodeRune(s, i)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case r < 0xa0 || r == '\u2028' || r == '\u2029':
			dst = appendEscaped(dst, uint16(r))
		default:
			dst = append(dst, s[i:i+size]...)
		}
		i += size
	}
	return append(dst, '"')
}

// plain is how many bytes at the beginning need no escaping: mostly all of them.
func plain[S string | []byte](s S) int {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// decodeRune looks at no more than one rune's bytes, so that a string is not copied.
func decodeRune[S string | []byte](s S, i int) (rune, int) {
	var b [utf8.UTFMax]byte
	n := copy(b[:], s[i:])
	return utf8.DecodeRune(b[:n])
}

func appendASCII(dst []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case c == '\n':
		return append(dst, `\n`...)
	case c == '\t':
		return append(dst, `\t`...)
	case c < 0x20 || c == 0x7f:
		return appendEscaped(dst, uint16(c))
	}
	return append(dst, c)
}

func appendEscaped(dst []byte, r uint16) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
