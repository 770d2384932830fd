package selection

import (
	"fmt"
	"strconv"
	"strings"
)

// inSample reports whether a socket is one of the sample of 1/n, by its cookie alone. So all
// transitions of a socket and its connection are in it or none, at every output and in every run, as
// long as the host is up. The cookies of the two ends of a connection are mostly neighbors: the hash
// must make them independent.
func inSample(cookie, n uint64) bool { return mix(cookie)%n == 0 }

// mix is the last step of MurmurHash3 for 64 bits: each bit of v changes each bit of the result with
// a probability of about one half.
func mix(v uint64) uint64 {
	const first, second = 0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53
	v = (v ^ v>>33) * first
	v = (v ^ v>>33) * second
	return v ^ v>>33
}

// MaxSample is the largest N of a sample of 1/N.
const MaxSample = 1_000_000

// ParseSample parses 1/N and returns N.
func ParseSample(word string) (uint64, error) {
	digits, found := strings.CutPrefix(word, "1/")
	n, err := strconv.ParseUint(digits, 10, 64)
	if !found || err != nil || n == 0 || n > MaxSample {
		return 0, fmt.Errorf("%q is not a share: use 1/N with N from 1 to %d, such as 1/100", word, MaxSample)
	}
	return n, nil
}
