package record

// cutBegin returns the end of s that takes at most maxBytes of a line, without the quotes.
func cutBegin(s string, maxBytes int) (end string, cut bool) {
	excess := encodedLen(s) - maxBytes
	for excess > 0 {
		_, size := decodeRune(s, 0)
		excess -= encodedLen(s[:size])
		s, cut = s[size:], true
	}
	return s, cut
}

// cutEnd returns the beginning of s that takes at most maxBytes of a line, without the quotes.
func cutEnd(s string, maxBytes int) (begin string, cut bool) {
	taken := 0
	for i := 0; i < len(s); {
		_, size := decodeRune(s, i)
		if taken += encodedLen(s[i : i+size]); taken > maxBytes {
			return s[:i], true
		}
		i += size
	}
	return s, false
}

// encodedLen is the number of bytes that s takes as a JSON string, without the quotes.
func encodedLen(s string) int {
	var room [256]byte
	return len(appendString(room[:0], s)) - len(`""`)
}
