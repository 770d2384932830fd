package selection

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ParseClosedBy parses a value of closed_by, such as timeout.
func ParseClosedBy(word string) (tcp.ClosedBy, error) {
	names := make([]string, 0, len(tcp.WaysToClose()))
	for _, way := range tcp.WaysToClose() {
		if string(way) == word {
			return way, nil
		}
		names = append(names, string(way))
	}
	return "", fmt.Errorf("%q is not a way to close: use %s", word, strings.Join(names, ", "))
}

// ParseErrno parses a value of error, such as ECONNREFUSED, or ERRNO_n for a number without a name.
func ParseErrno(word string) (tcp.Errno, error) {
	if e, known := tcp.ParseErrno(word); known {
		return e, nil
	}
	return 0, fmt.Errorf("%q is not an error: use one as in the records, such as ECONNREFUSED or ETIMEDOUT", word)
}

// ParseName returns the name or the id of a container or a pod as it is. It refuses only an empty one.
func ParseName(word string) (string, error) {
	if word == "" {
		return "", errors.New("the name is empty: use a name or an id as in the records")
	}
	return word, nil
}

// ParseBytes parses a number of bytes, with the unit KiB, MiB or GiB or without one.
func ParseBytes(word string) (uint64, error) {
	digits, unit := word, uint64(1)
	for suffix, bytes := range map[string]uint64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if before, found := strings.CutSuffix(word, suffix); found {
			digits, unit = before, bytes
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	high, size := bits.Mul64(n, unit)
	if err != nil || high != 0 {
		return 0, fmt.Errorf("%q is not a size: use bytes such as 1500, or a unit such as 64KiB or 1MiB", word)
	}
	return size, nil
}
