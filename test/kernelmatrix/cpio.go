package main

import (
	"fmt"
	"io"
	"strings"
)

// archive writes the "new ASCII" format of cpio, the only one that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w     io.Writer
	inode uint32
	err   error
}

// The types of entries, as in stat(2).
const (
	typeDir    = 0o040000
	typeFile   = 0o100000
	typeDevice = 0o020000 // a character device
)

type entry struct {
	name         string // relative to the root
	mode         uint32 // type and permissions
	major, minor uint32 // of a device
	content      []byte
}

// add writes one entry. After an error it does nothing.
func (a *archive) add(e entry) {
	a.inode++
	links := uint32(1)
	if e.mode&typeDir != 0 {
		links = 2
	}
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, e.mode, 0, 0, links, 0, len(e.content), 0, 0, e.major, e.minor, len(e.name)+1, 0)
	a.write([]byte(pad(header + e.name + "\x00")))
	a.write(e.content)
	a.write(make([]byte, -len(e.content)&3))
}

// close writes the entry that ends an archive.
func (a *archive) close() error {
	a.add(entry{name: "TRAILER!!!"})
	return a.err
}

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
	}
}

// pad fills up to a multiple of four bytes.
func pad(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
