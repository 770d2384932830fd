package safeopen

import "os"

// Root opens the directory at path, in which the caller then makes, renames and removes files without
// resolving path again.
func Root(path string) (*os.Root, error) { return os.OpenRoot(path) }
