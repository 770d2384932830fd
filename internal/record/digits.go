package record

import (
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// What the library does as well, but through a buffer of its own each time: numbers,
// addresses and times are half of a record.

// pairs are the numbers from 00 to 99.
var pairs = func() (p [200]byte) {
	for i := range 100 {
		p[2*i], p[2*i+1] = '0'+byte(i/10), '0'+byte(i%10)
	}
	return p
}()

var powersOf10 = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

// digitsOf is how many decimal digits a number has.
func digitsOf(v uint64) int {
	guess := bits.Len64(v|1) * 1233 >> 12 // of its logarithm, never too small by more than one
	if v < powersOf10[guess] {
		return max(1, guess)
	}
	return guess + 1
}

func appendUint(dst []byte, v uint64) []byte {
	return appendDigits(dst, v, digitsOf(v))
}

// appendDigits appends the last count digits of a number, with leading zeros.
func appendDigits(dst []byte, v uint64, count int) []byte {
	dst = slices.Grow(dst, count)
	at := len(dst)
	dst = dst[:at+count]
	number := dst[at:]
	for count >= 2 {
		rest := v / 100
		two := 2 * (v - 100*rest)
		number[count-1], number[count-2] = pairs[two+1], pairs[two]
		count, v = count-2, rest
	}
	if count == 1 {
		number[0] = '0' + byte(v%10)
	}
	return dst
}

func appendHex(dst []byte, v uint64) []byte {
	for shift := max(0, bits.Len64(v)-1) / 4 * 4; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&15])
	}
	return dst
}

// octets are the numbers from 0 to 255, each with a dot behind it.
var octets = func() (all [256]struct {
	text [4]byte
	len  int
}) {
	for i := range all {
		all[i].len = copy(all[i].text[:], append(appendUint(nil, uint64(i)), '.'))
	}
	return all
}()

func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.Is4() {
		return a.AppendTo(dst)
	}
	for _, b := range a.As4() {
		o := &octets[b]
		dst = append(dst, o.text[:]...)[:len(dst)+o.len]
	}
	return dst[:len(dst)-1]
}

// calendar appends times in RFC 3339, in UTC, with nine digits after the second. It
// keeps the text of the last second: a storm has thousands of records in one.
type calendar struct {
	second int64
	text   []byte // up to the second, without the Z; empty: none yet
}

func (c *calendar) append(dst []byte, at time.Time) []byte {
	if second := at.Unix(); second != c.second || len(c.text) == 0 {
		c.second = second
		c.text = at.UTC().AppendFormat(c.text[:0], time.RFC3339)
		c.text = c.text[:len(c.text)-len("Z")]
	}
	dst = append(append(dst, c.text...), '.')
	return append(appendDigits(dst, uint64(at.Nanosecond()), 9), 'Z')
}
