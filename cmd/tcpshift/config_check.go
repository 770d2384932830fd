package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/config"
	"github.com/tcpshift/tcpshift/internal/httpserver"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// checkFiles finds what the settings name and this host does not have: directories of outputs, of the spool, of the flight
// recorder and of a recording, files of TLS, and the file of a token. What this user has no permission to look at counts
// as correct, because the service may have it. It opens no output.
func (c *configured) checkFiles() error {
	var errs []error
	add := func(at config.Origin, key string, err error) {
		if err != nil && !errors.Is(err, os.ErrPermission) {
			errs = append(errs, &config.Error{Origin: at, Problem: fmt.Errorf("%s: %w", key, err)})
		}
	}
	outputs, _ := c.settings.Get(keyOutputs)
	for i, v := range c.options.outputs[:min(len(outputs.Values), len(c.options.outputs))] {
		value := outputs.Values[i]
		if v.scheme == schemeFile {
			add(originOf(value, keyTarget), keyOutputs, checkNewFile(v.path))
		}
		for _, problem := range v.checkTLS() {
			add(originOf(value, problem.option), keyOutputs, problem.err)
		}
	}
	if v := c.options.metrics.receiver; v != nil {
		for _, problem := range v.checkTLS() {
			add(c.originOf("metrics-otlp"), "metrics-otlp", problem.err)
		}
	}
	o := c.options
	for _, each := range []struct {
		key, path string
		check     func(path string) error
	}{
		{"spool", o.spool.directory, checkNewDirectory},
		{"recorder-dir", o.recorder.directory, checkNewDirectory},
		{"recording", o.recording, checkNewFile},
		{"metrics-web-config", o.metrics.webConfig, httpserver.CheckWebConfig},
		{"http-token-file", o.page.tokenFile, func(path string) error { _, err := readToken(path); return err }},
	} {
		if each.path != "" {
			add(c.originOf(each.key), each.key, each.check(each.path))
		}
	}
	return errors.Join(errs...)
}

// originOf returns the place of a member of an output, or of the output itself if it does not have the member.
func originOf(v config.Value, member string) config.Origin {
	at := slices.IndexFunc(v.Members, func(m config.Member) bool { return m.Name == member })
	if at < 0 || len(v.Members[at].Values) == 0 {
		return v.Origin
	}
	return v.Members[at].Values[0].Origin
}

// originOf returns the place of the value of a key.
func (c *configured) originOf(key string) config.Origin {
	s, _ := c.settings.Get(key)
	if len(s.Values) == 0 {
		return s.Origin
	}
	return s.Values[0].Origin
}

// checkNewFile checks that a run can open or make a file at path.
func checkNewFile(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory: name a file in it", path)
	}
	return checkDirectory(filepath.Dir(path), "name a file in one")
}

// checkNewDirectory checks that a run can open or make a directory at path.
func checkNewDirectory(path string) error {
	path = filepath.Clean(path)
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no directory: name one, or a new one", path)
	}
	return checkDirectory(filepath.Dir(path), "name one, or a new one, in a directory")
}

// checkDirectory checks that path is a directory, and says what to do if it is something else.
func checkDirectory(path, remedy string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the directory %s does not exist: create it", path)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory: %s", path, remedy)
	}
	return nil
}

// wrongOption is an option of an output, and what is wrong with it.
type wrongOption struct {
	option string
	err    error
}

// checkTLS reads the files of TLS that the output names.
func (v *outputValue) checkTLS() (wrong []wrongOption) {
	if v.tls.ca != "" {
		if _, err := authorities(v.tls.ca); err != nil {
			wrong = append(wrong, wrongOption{"ca", err})
		}
	}
	for _, each := range []struct{ option, path string }{{"cert", v.tls.cert}, {"key", v.tls.key}} {
		if each.path == "" {
			continue
		}
		if _, err := safeopen.ReadFile(each.path); err != nil {
			wrong = append(wrong, wrongOption{each.option, err})
		}
	}
	if _, err := v.tlsConfig(); err != nil && len(wrong) == 0 {
		wrong = append(wrong, wrongOption{"cert", err})
	}
	return wrong
}

// inOrder sorts the mistakes that err joins by their source, the one at path first, and then by line and column.
func inOrder(err error, path string) error {
	all := parts(err)
	sources := []string{path}
	for _, each := range all {
		if source := placeOf(each).Source; !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	slices.SortStableFunc(all, func(a, b error) int {
		at, other := placeOf(a), placeOf(b)
		return cmp.Or(
			cmp.Compare(slices.Index(sources, at.Source), slices.Index(sources, other.Source)),
			cmp.Compare(at.Line, other.Line), cmp.Compare(at.Column, other.Column))
	})
	return errors.Join(all...)
}

// parts returns the errors that err joins.
func parts(err error) (all []error) {
	switch e := err.(type) { //nolint:errorlint // each error of the tree is looked at
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			all = append(all, parts(each)...)
		}
		return all
	case usageError:
		return parts(e.error)
	}
	return []error{err}
}

// placeOf returns the place of a mistake; the zero Origin: it has none.
func placeOf(err error) config.Origin {
	var mistake *config.Error
	if errors.As(err, &mistake) {
		return mistake.Origin
	}
	return config.Origin{}
}

// messages returns the lines for the operator, one for each mistake.
func messages(err error) []string {
	if !errors.As(err, new(usageError)) {
		return []string{err.Error()}
	}
	return strings.Split(err.Error(), "\n")
}
