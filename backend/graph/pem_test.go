// SPDX-License-Identifier: MPL-2.0

package graph_test

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"example.com/vault-plugin-secrets-mdi/backend/graph"
)

// The text around the blocks of real files: remarks, in whatever encoding, what openssl
// prints, and the parameters that it writes before a key.
var around = []string{
	"",
	"\n\n",
	"\uFEFF", // in the middle, after cat
	"# our proxy, ask the network team\n",
	"# --- BEGIN CERTIFICATE ---\n",
	"# --- END CERTIFICATE ---\n— END OF THE PRIVATE KEY —\n-- END RSA PRIVATE KEY --\n",
	"# f\uFFFDr das B\uFFFDro\n", // was Latin-1
	"Bag Attributes\n    localKeyID: 01 00 00 00\n    friendlyName: x\nKey Attributes: <No Attributes>\n",
	"depth=1 CN = Issuing\nverify return:1\n---\nCertificate chain\n 0 s:CN = a\n   i:CN = b\n   a:PKEY: rsaEncryption, 2048 (bit)\n",
	"---\nServer certificate\nsubject=CN = a\nissuer=CN = b\n---\nNo client certificate CA names sent\n    Session-ID: 3A9F1B\n    0000 - 8a 3f 11 02-00 00   .?....\n",
	graph.EncodePEM("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}),
	graph.EncodePEM("DH PARAMETERS", []byte("generator and prime")),
}

// The ways in which editors, YAML and shells change a whole file without loss.
var transfers = map[string]func(string) string{
	"as it is":          func(s string) string { return s },
	"byte-order mark":   func(s string) string { return "\uFEFF" + s },
	"Windows' lines":    func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	"old lines":         func(s string) string { return strings.ReplaceAll(s, "\n", "\r") },
	"escaped lines":     func(s string) string { return strings.ReplaceAll(s, "\n", `\n`) },
	"indented":          func(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") },
	"spaces at the end": func(s string) string { return strings.ReplaceAll(s, "\n", " \t\n") },
	"last line open":    strings.TrimSpace,
}

// drawFile puts blocks into a file, with text around them or glued together.
func drawFile(t *rapid.T, blocks []string) string {
	file := rapid.SampledFrom(around).Draw(t, "before")
	for _, block := range blocks {
		if rapid.Bool().Draw(t, "glued") {
			block = strings.TrimSuffix(block, "\n")
		} else {
			block += rapid.SampledFrom(around).Draw(t, "after")
		}
		file += block
	}
	return transfers[rapid.SampledFrom(keys(transfers)).Draw(t, "transfer")](file)
}

// keys returns the keys of a map, in order, so that a failure can be repeated.
func keys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// manyCertificates returns different certificates, and their PEM blocks.
func manyCertificates(t *testing.T) (certs []*x509.Certificate, blocks []string) {
	t.Helper()
	for range 4 {
		block, _ := graph.MakeCertificate(t)
		certs, blocks = append(certs, parsed(t, block)), append(blocks, block)
	}
	return certs, blocks
}

// TestPEMIsTakenWhole: whatever stands around the blocks, each is found.
func TestPEMIsTakenWhole(t *testing.T) {
	certs, blocks := manyCertificates(t)
	cert, key := graph.Ours()
	plain, err := graph.ParseCertificate(cert + key)
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "order")[:rapid.IntRange(1, 4).Draw(t, "number")]
		var want []*x509.Certificate
		var drawn []string
		for _, i := range order {
			want, drawn = append(want, certs[i]), append(drawn, blocks[i])
		}
		got, err := graph.ParseCertificates(drawFile(t, drawn))
		require.NoError(t, err)
		require.Equal(t, want, got)

		info, err := graph.ParseCertificate(drawFile(t, rapid.Permutation(append(drawn, cert, key)).Draw(t, "bundle")))
		require.NoError(t, err)
		require.Equal(t, plain.Thumbprint, info.Thumbprint)
		require.Len(t, info.Unsent, len(drawn))
	})
}

// damages are what happens to a part of one block; the part may be all but some of it.
var damages = map[string]func(part string) string{
	"lost":         func(string) string { return "" },
	"doubled":      func(part string) string { return part + part },
	"commented":    func(part string) string { return "#" + part },
	"quoted":       func(part string) string { return "> " + strings.ReplaceAll(part, "\n", "\n> ") },
	"no base64":    func(part string) string { return strings.Repeat("!", len(part)) },
	"joined":       func(part string) string { return strings.ReplaceAll(part, "\n", " ") },
	"lower case":   strings.ToLower,
	"fewer dashes": func(part string) string { return strings.Replace(part, "--", "-", 1) },
	"typographic":  func(part string) string { return strings.ReplaceAll(part, "--", "–") },
	"zero-width":   func(part string) string { return "\u200B" + part },
	"NUL":          func(part string) string { return part + "\x00" },
	"truncated":    func(part string) string { return part[:len(part)/2] },
}

// TestDamagedPEMIsRefused: no certificate is lost in silence, and the error names its block
// and quotes nothing of it.
func TestDamagedPEMIsRefused(t *testing.T) {
	_, blocks := manyCertificates(t)
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.IntRange(1, 4).Draw(t, "number")
		drawn := append([]string{}, blocks[:number]...)
		at := rapid.IntRange(0, number-1).Draw(t, "damaged")
		block := drawn[at]
		from := rapid.IntRange(0, len(block)-2).Draw(t, "from")
		to := min(from+rapid.IntRange(1, len(block)*2/3).Draw(t, "length"), len(block)-1)
		kind := rapid.SampledFrom(keys(damages)).Draw(t, "kind")
		drawn[at] = block[:from] + damages[kind](block[from:to]) + block[to:]
		file := strings.Join(drawn, rapid.SampledFrom([]string{"", "\n", "# a remark\n"}).Draw(t, "between"))

		certs, err := graph.ParseCertificates(file)
		if err == nil { // harmless, or another certificate
			require.Len(t, certs, number)
			return
		}
		switch {
		case kind == "doubled": // a second END line can be taken for another block's
			require.Regexp(t, fmt.Sprintf("^PEM block (%d|%d) ", at+1, at+2), err.Error())
		case strings.Contains(file, "-----BEGIN "):
			require.Regexp(t, fmt.Sprintf("^PEM block %d ", at+1), err.Error())
		}
		require.NotRegexp(t, "[A-Za-z0-9+/]{20}", err.Error())
	})
}

// TestDamageIsExplained is about the cause in the error.
func TestDamageIsExplained(t *testing.T) {
	one, _ := graph.MakeCertificate(t)
	two, _ := graph.MakeCertificate(t)
	edit := func(old, replacement string) string { return one + strings.Replace(two, old, replacement, 1) + one }
	for problem, file := range map[string]string{
		"PEM block 2 is damaged":                                       edit("MI", "MI!"),
		"PEM block 2 contains an invisible character (U+200B)":         edit("MI", "MI\u200B"),
		"PEM block 2 contains an invisible character (U+00A0)":         edit("MI", "MI\u00A0"),
		"PEM block 2 contains a NUL character (U+0000)":                edit("MI", "MI\x00"),
		"PEM block 2 contains a character that is not ASCII (U+0406)":  edit("MI", "M\u0406"),
		"PEM block 2 has no intact BEGIN line":                         edit("-----BEGIN", "----BEGIN"),
		"PEM block 1 has no intact BEGIN line":                         strings.Replace(one, "BEGIN", "BEGN", 1),
		"PEM block 2 cannot be parsed":                                 edit("MI", "AA"),
		"PEM block 2 is not of type CERTIFICATE":                       strings.ReplaceAll(edit("x", "x"), two, strings.ReplaceAll(two, "CERTIFICATE", "X509 CRL")),
		"PEM block 3 is damaged: a BEGIN line, lines of base64 and an": one + one + strings.Replace(two, "-----END", "", 1),
	} {
		_, err := graph.ParseCertificates(file)
		require.ErrorContains(t, err, problem)
	}
}

// TestWhatRemainsOfABlockIsNoRemark keeps the two apart.
func TestWhatRemainsOfABlockIsNoRemark(t *testing.T) {
	cert, _ := graph.MakeCertificate(t)
	lines := strings.SplitAfter(cert, "\n")
	for _, remark := range around {
		_, err := graph.ParseCertificates(cert + remark)
		require.NoError(t, err, remark)
	}
	for _, part := range []string{lines[0], lines[1], lines[len(lines)-2], strings.Join(lines[1:len(lines)-2], "")} {
		for _, file := range []string{part + cert, cert + part} {
			_, err := graph.ParseCertificates(file)
			require.Error(t, err, regexp.MustCompile("[A-Za-z0-9+/]{20,}").ReplaceAllString(part, "…"))
		}
	}
}
