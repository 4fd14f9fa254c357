// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	// pemCertificate is a type of block.
	pemCertificate = "CERTIFICATE"
	// maxBlocks is far beyond a chain and the bundle of an operating system, which people
	// extend by their proxy's authority; it bounds the work on a text.
	maxBlocks = 500
)

// lineBreak also matches an escaped line break, and the indentation that YAML needs.
var lineBreak = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[ \t]*(?:\r\n?|\n|(?:\\r)?\\n)[ \t]*`) })

// remains matches what shows, outside of all blocks, that the BEGIN line of one is damaged:
// its END line, or the first line of its content. One dash may be lost, and editors join two;
// remarks have fewer.
var remains = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?m)(?:-{4}|[–—]{2})(?:BEGIN|END) [A-Z0-9 ]*(?:CERTIFICATE|KEY)|(?:BEGIN|END) [A-Z0-9 ]*(?:CERTIFICATE|KEY)(?:-{4}|[–—]{2})|^MI[A-Za-z0-9+/]{30}`)
})

// eachBlock calls use for the PEM blocks of a text, whatever stands around them, and
// returns the first error, with the number of its block. It goes on after an error. The
// error quotes nothing.
//
// Package pem skips what it cannot decode, so it gets one block at a time.
func eachBlock(text string, use func(*pem.Block) error) (first error) {
	const begin = "-----BEGIN "
	if err := plainText(text); err != nil && !strings.Contains(text, begin) {
		return err // in UTF-16, for example, nothing looks like a block
	}
	for n, part := range strings.Split(lineBreak().ReplaceAllString(text, "\n"), begin) {
		block, after := pem.Decode([]byte(begin + part))
		var err error
		switch {
		case n == 0: // what precedes the first block
			after = []byte(part)
		case block == nil:
			content, _, _ := strings.Cut(part, "-----END ")
			if err = plainText(content); err == nil {
				err = errors.New("is damaged: a BEGIN line, lines of base64 and an END line of the same type must follow each other, without anything else")
			}
		case !strings.HasSuffix(block.Type, " PARAMETERS"): // those of a key
			err = use(block)
		}
		if err == nil && remains().Match(after) {
			n, err = n+1, errors.New("has no intact BEGIN line")
		}
		if err == nil && n > maxBlocks {
			err = fmt.Errorf("is one too many: keep the certificates that are needed, %d blocks at most", maxBlocks)
		}
		if err != nil && first == nil {
			first = fmt.Errorf("PEM block %d %w", n, err)
		}
	}
	return first
}

// ParseCertificates returns the certificates of [Config.CACertificates], which is one or
// more PEM blocks of type CERTIFICATE, or "" for none. With an error, which quotes
// nothing, it returns those that it could read.
func ParseCertificates(text string) ([]*x509.Certificate, error) {
	var b bundle
	err := eachBlock(text, func(block *pem.Block) error {
		if block.Type != pemCertificate && (foreign[block.Type] == "" || strings.HasSuffix(block.Type, "KEY")) {
			return errors.New("is not of type CERTIFICATE: remove it")
		}
		return b.add(block)
	})
	if err == nil && len(b.certs) == 0 && strings.TrimSpace(text) != "" {
		err = errors.New("contains no certificate: it must be one or more PEM blocks of type CERTIFICATE")
	}
	return b.certs, err
}

// plainText returns what kind of character a text contains that PEM blocks, which are ASCII,
// do not. It quotes nothing else.
func plainText(text string) error {
	for _, r := range text {
		kind := "a character that is not ASCII"
		switch {
		case r < utf8.RuneSelf && (unicode.IsPrint(r) || unicode.IsSpace(r)):
			continue
		case 4*strings.Count(text, "\x00") > utf8.RuneCountInString(text):
			return errors.New("is UTF-16 text: save it as UTF-8")
		case r == 0:
			kind = "a NUL character"
		case !unicode.IsPrint(r):
			kind = "an invisible character"
		}
		return fmt.Errorf("contains %s (%U): remove it, or copy the text anew", kind, r)
	}
	return nil
}
