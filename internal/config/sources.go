package config

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

const (
	maxFile  = 1 << 20 // bytes
	maxFiles = 256     // in a directory
)

// Directory is the directory whose files complete the file at path: /etc/tcpshift/config.d for
// /etc/tcpshift/config.yaml.
func Directory(path string) string { return strings.TrimSuffix(path, extension) + ".d" }

const extension = ".yaml"

// Files reads the file at path and the files *.yaml in its [Directory], if there is one, in the order of their
// names. Each is a layer. The files must belong to root or to this user, and nobody else may have the right to
// write to them. The error joins all mistakes.
func Files(path string, keys []Key) (layers []Layer, err error) {
	more, err := list(Directory(path))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, each := range append([]string{path}, more...) {
		text, err := safeopen.ReadTrusted(each, maxFile)
		if errors.Is(err, safeopen.ErrRefused) {
			err = fmt.Errorf("%w: only root, or the user that runs tcpshift, may be able to change it", err)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		layer, err := Parse(each, text, keys)
		layers, errs = append(layers, layer), append(errs, err)
	}
	return layers, errors.Join(errs...)
}

// list returns the paths of the configuration files in a directory, in the order of their names.
func list(directory string) (paths []string, err error) {
	names, err := safeopen.DirNames(directory, maxFiles+1)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(names) > maxFiles:
		return nil, fmt.Errorf("%s: has more than %d files", directory, maxFiles)
	}
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, extension):
			paths = append(paths, filepath.Join(directory, name))
		case strings.HasSuffix(name, ".yml"):
			return nil, fmt.Errorf("%s: only files *%s are read: rename it", filepath.Join(directory, name), extension)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// prefix begins the names of the variables.
const prefix = "TCPSHIFT_"

// Variable is the name of the environment variable of a key.
func Variable(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// Environment reads the variables TCPSHIFT_* of an environment such as [os.Environ]. Each line of a variable
// is a value; an empty variable stands for the default.
func Environment(environment []string, keys []Key) (layer Layer, err error) {
	var wrong mistakes
	variables := make([]string, len(keys))
	for i, k := range keys {
		variables[i] = Variable(k.Name)
	}
	for _, each := range environment {
		name, text, _ := strings.Cut(each, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		origin := Origin{Source: name}
		at := slices.Index(variables, name)
		if at < 0 {
			wrong.add(origin, "%s", unknown(name, "the variable of a key", variables))
			continue
		}
		s := Setting{Origin: origin, Key: keys[at].Name}
		for line := range strings.Lines(text) {
			s.Values = append(s.Values, Value{Origin: origin, Text: strings.TrimSuffix(line, "\n")})
		}
		if len(s.Values) > 1 && keys[at].Kind == Single {
			wrong.add(origin, "has %d lines: use one value", len(s.Values))
		}
		layer = append(layer, s)
	}
	return layer, wrong.join()
}

//go:embed profiles
var profiles embed.FS

// Profiles are the names of the profiles.
func Profiles() (names []string) {
	files, _ := profiles.ReadDir("profiles") // it is part of the program
	for _, file := range files {
		names = append(names, strings.TrimSuffix(file.Name(), extension))
	}
	return names
}

// Profile reads the profile of this name. at is where the name stands.
func Profile(at Origin, name string, keys []Key) (Layer, error) {
	if !slices.Contains(Profiles(), name) {
		return nil, &Error{at, fmt.Errorf("profile: %q is not a profile: use %s", name, strings.Join(Profiles(), ", "))}
	}
	text, err := profiles.ReadFile("profiles/" + name + extension)
	if err != nil {
		return nil, err
	}
	return Parse("profile "+name, text, keys)
}
