package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/record"
)

// The schemes of --output. A value without a scheme is a path, or "-".
const (
	schemeFile   = "file"
	schemeStdout = "-"
)

var schemes = []string{schemeFile, schemeUnix, schemeUnixgram, schemeTCP, schemeTLS, schemeJournald, schemeOTLP, schemeOTLPS, schemeOTLPHTTP, schemeOTLPSHTTP}

// outputValue is one value of --output: a target, and options that replace the flags of their name
// for this output.
type outputValue struct {
	text   string // as it was given
	name   string // for messages
	scheme string
	path   string // "-" is standard output; host:port for TCP
	prefix string // of otlp+http and otlps+http: the path of the URL, before /v1/logs; empty: none
	tls    tlsFiles
	rotate rotation
	host   bool // each record has the keys host and boot_id

	format    string
	schema    record.Schema
	only      []string // record types; nil: all but process
	fields    []string // keys of an ndjson record; nil: all
	queueSize int      // bytes
	mode      os.FileMode
	given     []string // the names of the options
}

// outputOption is an option of an output.
type outputOption struct {
	name    string
	schemes []string // that have it; nil: all
	set     func(v *outputValue, value string) error
}

// The schemes of outputs whose format and schema can be chosen, and of those with TLS.
var (
	withFormat = []string{schemeFile, schemeStdout, schemeUnix, schemeUnixgram, schemeTCP, schemeTLS}
	withTLS    = []string{schemeTLS, schemeOTLPS, schemeOTLPSHTTP}
)

var outputOptionTable = []outputOption{
	{"format", withFormat, func(v *outputValue, s string) (err error) { v.format, err = parseFormat(s); return err }},
	{"schema", withFormat, func(v *outputValue, s string) (err error) { v.schema, err = parseSchema(s); return err }},
	{"only", nil, func(v *outputValue, s string) error { return filter.AppendList(&v.only, s, parseRecordType) }},
	{"fields", nil, func(v *outputValue, s string) error { return filter.AppendList(&v.fields, s, parseField) }},
	{"queue", nil, func(v *outputValue, s string) (err error) { v.queueSize, err = parseQueueSize(s); return err }},
	{"name", nil, func(v *outputValue, s string) (err error) { v.name, err = parseOutputName(s); return err }},
	{"host", nil, func(v *outputValue, s string) (err error) { v.host, err = parseSwitch(s); return err }},
	{"ca", withTLS, func(v *outputValue, s string) (err error) { v.tls.ca, err = parsePath(s); return err }},
	{"cert", withTLS, func(v *outputValue, s string) (err error) { v.tls.cert, err = parsePath(s); return err }},
	{"key", withTLS, func(v *outputValue, s string) (err error) { v.tls.key, err = parsePath(s); return err }},
	{"servername", withTLS, func(v *outputValue, s string) error { v.tls.serverName = s; return nil }},
	{"mode", []string{schemeFile}, func(v *outputValue, s string) (err error) { v.mode, err = parseMode(s); return err }},
	{"rotate-size", []string{schemeFile}, func(v *outputValue, s string) (err error) { v.rotate.size, err = parseFileSize(s); return err }},
	{"rotate-age", []string{schemeFile}, func(v *outputValue, s string) (err error) { v.rotate.age, err = parseAge(s); return err }},
	{"rotate-keep", []string{schemeFile}, func(v *outputValue, s string) (err error) { v.rotate.keep, err = parseLimit(s); return err }},
	{"compress", []string{schemeFile}, func(v *outputValue, s string) (err error) { v.rotate.compress, err = parseCompression(s); return err }},
}

// parseOutput parses TARGET?OPTION=VALUE&... The target is a path, "-", or a URL. In a URL and in
// the values of options, %XX is a byte.
func parseOutput(text string) (*outputValue, error) {
	target, options, _ := strings.Cut(text, "?")
	v, err := newOutputValue(target)
	if err != nil {
		return nil, err
	}
	v.text = text
	if options == "" {
		return v, nil
	}
	for _, option := range strings.Split(options, "&") {
		if err := v.setOption(option); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
	}
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return v, nil
}

// newOutputValue parses a target.
func newOutputValue(target string) (*outputValue, error) {
	v := &outputValue{text: target, name: target}
	if err := v.locate(target); err != nil {
		return nil, err
	}
	v.host = v.isRemote() && v.scheme != schemeJournald // the journal has its own fields for that
	return v, nil
}

// check rejects options that make no sense without others.
func (v *outputValue) check() error {
	switch {
	case (v.tls.cert == "") != (v.tls.key == ""):
		return errors.New("cert and key belong together: give both")
	case !v.rotate.wanted() && v.rotate != (rotation{}):
		return errors.New("nothing rotates this file: add rotate-size or rotate-age")
	}
	return nil
}

// schemePattern matches what is taken as a scheme. A file with such a name must be given as ./a:b.
var schemePattern = regexp.MustCompile(`^([a-z][a-z0-9+]+):`)

// locate parses the target.
func (v *outputValue) locate(target string) error {
	found := schemePattern.FindStringSubmatch(target)
	if found == nil {
		v.scheme, v.path = schemeFile, target
		if target == "-" {
			v.scheme = schemeStdout
		}
		_, err := parsePath(target)
		return err
	}
	v.scheme = found[1]
	rest := strings.TrimPrefix(target, found[0])
	switch v.scheme {
	case schemeFile, schemeUnix, schemeUnixgram:
		return v.locatePath(rest)
	case schemeTCP, schemeTLS:
		return v.locateAddress(rest)
	case schemeOTLP, schemeOTLPS:
		v.format, v.schema = formatNDJSON, record.SchemaOTel
		return v.locateAddress(rest)
	case schemeOTLPHTTP, schemeOTLPSHTTP:
		v.format, v.schema = formatNDJSON, record.SchemaOTel
		return v.locateEndpoint(rest)
	case schemeJournald:
		return v.locateJournal(rest)
	}
	return fmt.Errorf("%s: %q is not a scheme: use %s:, or ./%s for a file of that name", v.text, v.scheme+":", strings.Join(schemes, ":, "), target)
}

// locatePath parses what follows the scheme of a URL with a path: a path, or // and an absolute one.
func (v *outputValue) locatePath(rest string) error {
	if local, found := strings.CutPrefix(rest, "//"); found {
		if !strings.HasPrefix(local, "/") {
			return fmt.Errorf("%s: has a host: write %s:///PATH", v.text, v.scheme)
		}
		rest = local
	}
	path, err := url.PathUnescape(rest)
	if err == nil {
		_, err = parsePath(path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.text, err)
	}
	if path == "-" { // a file of that name
		path = "./-"
	}
	v.path = path
	return nil
}

// setOption parses NAME=VALUE.
func (v *outputValue) setOption(option string) error {
	name, value, found := strings.Cut(option, "=")
	switch known := slices.ContainsFunc(outputOptionTable, func(o outputOption) bool { return o.name == name }); {
	case !known:
		return fmt.Errorf("%q is not an option of an output: use %s, or file: and %%3F for a '?' in a path", name, strings.Join(v.optionNames(), ", "))
	case !found:
		return fmt.Errorf("%s: needs a value: write %s=VALUE", name, name)
	case slices.Contains(v.given, name):
		return fmt.Errorf("%s: is there twice: write it once", name)
	}
	value, err := url.PathUnescape(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return v.set(name, value)
}

// set sets the option of this name, which is in outputOptionTable.
func (v *outputValue) set(name, value string) error {
	if !slices.Contains(v.optionNames(), name) {
		return fmt.Errorf("%s: this kind of output has no such option: use %s", name, strings.Join(v.optionNames(), ", "))
	}
	v.given = append(v.given, name)
	at := slices.IndexFunc(outputOptionTable, func(o outputOption) bool { return o.name == name })
	if err := outputOptionTable[at].set(v, value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// optionNames are the options that an output with this scheme has.
func (v *outputValue) optionNames() (names []string) {
	for _, o := range outputOptionTable {
		if o.schemes == nil || slices.Contains(o.schemes, v.scheme) {
			names = append(names, o.name)
		}
	}
	return names
}

// targetID identifies the target. Two outputs with one targetID are refused: in a file they would write into each
// other's lines, and a reader at a socket would get two streams. It is empty for /dev/null, where two do no harm.
func (v *outputValue) targetID() string {
	if v.scheme != schemeFile {
		return v.scheme + ":" + v.path + v.prefix
	}
	path, err := filepath.Abs(v.path)
	if err != nil {
		path = v.path
	}
	if path == os.DevNull {
		return ""
	}
	return v.scheme + ":" + path
}

// parseSwitch parses true or false.
func parseSwitch(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, fmt.Errorf("%q is neither true nor false", s)
	}
	return s == "true", nil
}

var outputNamePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

func parseOutputName(s string) (string, error) {
	if !outputNamePattern.MatchString(s) {
		return "", fmt.Errorf("%q is not a name: use up to 64 letters, digits, and _ . - within", s)
	}
	return s, nil
}

// parseMode parses the permissions of a file, in octal.
func parseMode(s string) (os.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	switch {
	case err != nil || n > 0o777:
		return 0, fmt.Errorf("%q is not a mode: use octal permissions such as 0640", s)
	case n&0o600 != 0o600:
		return 0, errors.New(strconv.Quote(s) + " does not let the owner read and write: use one such as 0640")
	case n&0o111 != 0:
		return 0, errors.New(strconv.Quote(s) + " lets somebody execute the file: use one such as 0640")
	}
	return os.FileMode(n), nil
}
