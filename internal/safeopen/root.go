package safeopen

import "os"

// Root opens the directory at path, which the operator has given: links in it are followed. In the
// directory the caller can make, rename and remove files without resolving path again.
func Root(path string) (*os.Root, error) { return os.OpenRoot(path) }
