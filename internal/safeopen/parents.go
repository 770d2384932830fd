package safeopen

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ReplaceableParent returns which directory above the file at path another user can replace, by a
// link for example, and why, as a clause for a message; "" if none. Root, this user and the group root are trusted. Whether
// the last component can be replaced does not matter here: [Append] looks at it each time.
//
// A user can replace an entry of a directory that he may write to. If the directory is sticky, he
// must own it or the entry.
func ReplaceableParent(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return "" // the open of the file has reported it
	}
	given := filepath.Dir(path)
	if why := replaceableIn(given); why != "" {
		return why
	}
	if target, err := filepath.EvalSymlinks(given); err == nil && target != given {
		return replaceableIn(target)
	}
	return ""
}

// replaceableIn is ReplaceableParent for the components of an absolute path.
func replaceableIn(path string) string {
	dir := "/"
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		entry := filepath.Join(dir, name)
		if why := replaceable(dir, entry); why != "" {
			return why
		}
		dir = entry
	}
	return ""
}

func replaceable(dir, entry string) string {
	in, err := statAt(dir, true)
	if err != nil {
		return ""
	}
	if !trusted(in.Uid) {
		return fmt.Sprintf("%s can be replaced by uid %d, who owns %s", entry, in.Uid, dir)
	}
	others := in.Mode&unix.S_IWOTH != 0
	if !others && (in.Mode&unix.S_IWGRP == 0 || in.Gid == 0) {
		return ""
	}
	who := "any user"
	if !others {
		who = fmt.Sprintf("group %d", in.Gid)
	}
	if in.Mode&unix.S_ISVTX == 0 {
		return fmt.Sprintf("%s can be replaced by %s, who may write to %s", entry, who, dir)
	}
	if at, err := statAt(entry, false); err == nil && !trusted(at.Uid) {
		return fmt.Sprintf("%s can be replaced by uid %d, who owns it", entry, at.Uid)
	}
	return ""
}

func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

func statAt(path string, follow bool) (st unix.Stat_t, err error) {
	r, err := findLast(path, follow)
	if err != nil {
		return st, err
	}
	defer r.close()
	return r.stat()
}
