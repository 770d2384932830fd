// Command rootinit is process 1 of the Debian guest until it has mounted its disks: it loads the modules that
// they need, and becomes the init of the first one. It replaces the initramfs of Debian: that is
// large for an emulated processor, and most of it searches for hardware that is known here.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// newRoot is where the first disk is mounted before it becomes /.
const newRoot = "/root"

func main() {
	// Process 1 must not exit: the kernel would panic, which ends the guest. That is what is wanted here.
	fmt.Println("rootinit:", run())
}

// run does not return if all is well.
func run() error {
	if err := loadModules(); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, fs string
		flags              uintptr
	}{
		{"devtmpfs", "/dev", "devtmpfs", 0},
		{"/dev/vda", newRoot, "ext4", 0},
		{"/dev/vdb", newRoot + "/payload", "ext4", unix.MS_RDONLY},
		{"/dev", newRoot + "/dev", "", unix.MS_MOVE},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fs, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make %s the root: %w", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return fmt.Errorf("execute /sbin/init: %w", unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"HOME=/", "TERM=linux"}))
}

// loadModules loads the modules in the order of their names.
func loadModules() error {
	paths, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
		_ = f.Close()
	}
	return nil
}
