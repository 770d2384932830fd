package output

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// LeftSpools returns the names of the directories in root that have lines which no output sends: they are not among
// the names, and no process uses them. A directory that cannot be read is none of them. It waits for a disk that hangs.
func LeftSpools(root *os.Root, names []string) (left []string) {
	entries, err := namesIn(root)
	if err != nil {
		return nil
	}
	for _, name := range slices.Sorted(slices.Values(entries)) {
		if !slices.Contains(names, name) && isLeft(root, name) {
			left = append(left, name)
		}
	}
	return left
}

func namesIn(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// isLeft reports whether a spool has lines and is not in use.
func isLeft(root *os.Root, name string) bool {
	if info, err := root.Lstat(name); err != nil || !info.IsDir() {
		return false
	}
	dir, err := root.OpenRoot(name)
	if err != nil {
		return false
	}
	s := &spool{root: dir}
	defer dir.Close()
	if s.position, err = dir.OpenFile(positionName, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err != nil {
		return false
	}
	defer s.position.Close()
	if unix.Flock(int(s.position.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
		return false
	}
	numbers, err := s.list()
	first, _ := s.readPosition() // segments before it have been sent
	return err == nil && slices.ContainsFunc(numbers, func(number uint64) bool {
		info, err := dir.Lstat((&segment{number: number}).name())
		return number >= first && err == nil && info.Size() > 0
	})
}
