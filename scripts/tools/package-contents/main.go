// SPDX-License-Identifier: MPL-2.0

// Command package-contents prints what is in a deb or rpm, one thing a line: name, version,
// architecture, what it depends on, its scripts, and its files with their modes and SHA-256.
// It reads both on any system.
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/blakesmith/ar"
	"github.com/sassoftware/go-rpmutils"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: package-contents FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "error: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func run(name string) error {
	file, err := os.Open(name) //nolint:gosec // which file is what the argument is for
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	list := deb
	if path.Ext(name) == ".rpm" {
		list = rpm
	}
	lines, err := list(file)
	if err != nil {
		return err
	}
	slices.Sort(lines)
	fmt.Println(strings.Join(lines, "\n"))
	return nil
}

// deb lists an ar archive of two tar archives: one describes the package, one has its files.
func deb(file io.Reader) (lines []string, err error) {
	for archive := ar.NewReader(file); ; {
		member, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		var more []string
		switch strings.TrimSuffix(member.Name, "/") {
		case "control.tar.gz":
			more, err = entries(archive, control)
		case "data.tar.gz":
			more, err = entries(archive, data)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member.Name, err)
		}
		lines = append(lines, more...)
	}
}

// entries calls list for each file of a compressed tar archive.
func entries(compressed io.Reader, list func(*tar.Header, []byte) []string) (lines []string, err error) {
	unpacked, err := gzip.NewReader(compressed)
	if err != nil {
		return nil, err
	}
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeReg {
			lines = append(lines, list(header, text)...)
		}
	}
}

func control(header *tar.Header, text []byte) (lines []string) {
	switch name := path.Base(header.Name); name {
	case "control":
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); slices.Contains([]string{"Package", "Version", "Architecture", "Depends"}, key) {
				lines = append(lines, strings.ToLower(key)+" "+value)
			}
		}
	case "md5sums", "conffiles":
	default:
		lines = append(lines, fmt.Sprintf("script %x %s", sha256.Sum256(text), name))
	}
	return lines
}

func data(header *tar.Header, text []byte) []string {
	name := path.Join("/", header.Name) //nolint:gosec // it is printed, and nothing extracted
	return []string{fmt.Sprintf("file %o %x %s", header.Mode&0o7777, sha256.Sum256(text), name)}
}

// rpm lists the header of a package, which has the digests of its files.
func rpm(file io.Reader) (lines []string, err error) {
	header, err := rpmutils.ReadHeader(file)
	if err != nil {
		return nil, err
	}
	for _, tag := range []struct {
		id   int
		name string
	}{
		{rpmutils.NAME, "package"},
		{rpmutils.VERSION, "version"},
		{rpmutils.ARCH, "architecture"},
		{rpmutils.REQUIRENAME, "depends"},
		{rpmutils.POSTIN, "postin"},
		{rpmutils.POSTUN, "postun"},
	} {
		values, err := header.GetStrings(tag.id)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tag.name, err)
		}
		for _, value := range values {
			if strings.HasPrefix(tag.name, "post") {
				value, tag.name = fmt.Sprintf("%x %s", sha256.Sum256([]byte(value)), tag.name), "script"
			}
			lines = append(lines, tag.name+" "+value)
		}
	}
	files, err := header.GetFiles()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Digest() != "" {
			lines = append(lines, fmt.Sprintf("file %o %s %s", f.Mode()&0o7777, f.Digest(), f.Name()))
		}
	}
	return lines, nil
}
