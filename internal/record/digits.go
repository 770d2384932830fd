package record

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// What the library does as well, but through a buffer of its own each time: numbers,
// addresses and times are half of a record.

// eightDigits are the decimal digits of a number below 10^8, a byte for each, the first
// one lowest. The number is halved three times, all of its parts at once: a division by
// 100 or by 10 is a multiplication that is exact for parts of this size.
func eightDigits(v uint64) uint64 {
	v = v/10_000 | v%10_000<<32
	hundreds := v * 10_486 >> 20 & 0x7f_0000_007f
	v = hundreds | (v-100*hundreds)<<16
	tens := v * 103 >> 10 & 0x0f_000f_000f_000f
	return tens | (v-10*tens)<<8
}

// eightZeros makes text of eightDigits.
const eightZeros = 0x3030_3030_3030_3030

func appendUint(dst []byte, v uint64) []byte {
	const room = 100_000_000
	if v >= room {
		return appendEight(appendUint(dst, v/room), v%room)
	}
	digits := eightDigits(v)
	leading := min(7, bits.TrailingZeros64(digits)/8)
	end := len(dst) + 8 - leading
	return binary.LittleEndian.AppendUint64(dst, (digits|eightZeros)>>(8*leading))[:end]
}

// appendEight appends a number below 10^8 with leading zeros.
func appendEight(dst []byte, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, eightDigits(v)|eightZeros)
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
	text   []byte // up to the point behind the second; empty: none yet
}

func (c *calendar) append(dst []byte, at time.Time) []byte {
	if second := at.Unix(); second != c.second || len(c.text) == 0 {
		c.second = second
		c.text = at.UTC().AppendFormat(c.text[:0], time.RFC3339)
		c.text[len(c.text)-len("Z")] = '.'
	}
	const ninth = 100_000_000
	nanosecond := uint64(at.Nanosecond())
	dst = append(append(dst, c.text...), '0'+byte(nanosecond/ninth))
	return append(appendEight(dst, nanosecond%ninth), 'Z')
}
