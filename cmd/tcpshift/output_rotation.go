package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
)

// rotation are the options of a file that is rotated.
type rotation struct {
	size     int64         // bytes; 0: no limit
	age      time.Duration // 0: no limit
	keep     int           // old files; 0: defaultKeep
	compress bool
}

// defaultKeep is the number of old files that stay.
const defaultKeep = 7

// minFileSize has room for many records of the longest kind.
const minFileSize = 64 << 10

func (r rotation) wanted() bool { return r.size > 0 || r.age > 0 }

// rotationOf is the rotation of an output, without its header.
func (o *traceOptions) rotationOf(v *outputValue) output.Rotation {
	r := output.Rotation{Size: v.rotate.size, Age: v.rotate.age, Keep: v.rotate.keep, Compress: v.rotate.compress, Notify: o.notifierFor(v)}
	if r.Keep == 0 {
		r.Keep = defaultKeep
	}
	return r
}

// rotated returns the output with the rotation of v. It closes the output if that fails.
func (o *traceOptions) rotated(out output.Output, v *outputValue) (output.Output, error) {
	r := o.rotationOf(v)
	if v.format == formatText {
		r.Header = o.textFor(v).EventHeader(nil)
	}
	rotating, err := output.Rotate(out, r)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--output: %s: %w", v.text, err), out.Close())
	}
	return rotating, nil
}

// parseFileSize parses a size with a unit, of 64 KiB or more.
func parseFileSize(s string) (int64, error) { return parseBytes(s, minFileSize, "100MiB") }

// parseBytes parses a size with a unit, of so many bytes or more.
func parseBytes(s string, least int64, example string) (int64, error) {
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		digits, found := strings.CutSuffix(s, suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32) // 4 EiB at most
		if err != nil || int64(n)*bytes < least {
			return 0, fmt.Errorf("%q is not a size from %dKiB on: use one such as %s", s, least>>10, example)
		}
		return int64(n) * bytes, nil
	}
	return 0, errors.New(strconv.Quote(s) + " has no unit: use KiB, MiB or GiB, such as " + example)
}

func parseAge(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < time.Second {
		return 0, fmt.Errorf("%q is too short: use 1s or more, such as 24h", s)
	}
	return d, err
}

func parseCompression(s string) (bool, error) {
	if s != "gzip" {
		return false, fmt.Errorf("%q is not a compression: use gzip", s)
	}
	return true, nil
}
