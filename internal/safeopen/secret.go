package safeopen

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ReadSecret is [ReadTrusted] for a file that has a secret: it also refuses a file that others may read.
func ReadSecret(path string, maxBytes int64) ([]byte, error) {
	return readGuarded(path, maxBytes, func(st *unix.Stat_t) error {
		if st.Mode&0o077 != 0 {
			return &refusal{path, fmt.Sprintf("may be read by other users (mode %04o)", st.Mode&0o777), ErrRefused}
		}
		return nil
	})
}
