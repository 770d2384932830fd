package safeopen

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ReadTrusted reads a regular file that decides what this process does, such as its configuration. Links in
// path are followed. The error wraps [ErrOtherKind] if the file is not regular, [ErrRefused] if, by its owner and
// mode, a user who is neither this one nor root may change it, and [ErrTooLarge] if it has more than maxBytes.
// The directories of path are not checked.
func ReadTrusted(path string, maxBytes int64) ([]byte, error) {
	return readGuarded(path, maxBytes, func(*unix.Stat_t) error { return nil })
}

// readGuarded is ReadTrusted, and also refuses what check refuses.
func readGuarded(path string, maxBytes int64, check func(st *unix.Stat_t) error) ([]byte, error) {
	r, err := find(path)
	if err != nil {
		return nil, err
	}
	defer r.close()
	st, err := r.stat()
	switch {
	case err != nil:
		return nil, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, &refusal{path, "is not a regular file", ErrOtherKind}
	case !trusted(st.Uid):
		return nil, &refusal{path, fmt.Sprintf("belongs to another user (uid %d)", st.Uid), ErrRefused}
	case st.Mode&0o022 != 0:
		return nil, &refusal{path, fmt.Sprintf("may be changed by other users (mode %04o)", st.Mode&0o777), ErrRefused}
	}
	if err := check(&st); err != nil {
		return nil, err
	}
	f, err := r.open(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return readUpTo(f, path, maxBytes)
}
