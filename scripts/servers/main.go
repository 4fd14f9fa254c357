// SPDX-License-Identifier: MPL-2.0

// Command servers downloads a released Vault or OpenBao for the acceptance tests, and prints
// the path of its binary. It finds the version by the feed of releases, so that a new one is
// tested without a change here. It checks the download by the checksum that the release has.
// It does not check signatures: checksums and files come from the same host.
//
//	servers [-into .cache/bin] vault newest      the newest release
//	servers vault previous                       the newest release of the line before
//	servers openbao 2.6                          the newest release of that line
//
// With GITHUB_TOKEN set, it asks GitHub as that user, who may ask more often.
package main

import (
	"archive/tar"
	"archive/zip"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

// limit bounds a run: an archive has 200 MB.
const limit = 10 * time.Minute

func main() { command.Main(run) }

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("servers", flag.ContinueOnError)
	into := flags.String("into", filepath.Join(".cache", "bin"), "`folder` for the binary")
	feed := flags.String("feed", "", "`URL` of the feed, instead of the product's own")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	p, known := products()[flags.Arg(0)]
	if !known || flags.NArg() != 2 {
		return errors.New("usage: servers [-into FOLDER] vault|openbao newest|previous|LINE")
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	text, err := fetch(ctx, cmp.Or(*feed, p.feed))
	if err != nil {
		return err
	}
	releases, err := p.releases(text)
	if err != nil {
		return fmt.Errorf("the feed %s: %w", cmp.Or(*feed, p.feed), err)
	}
	r, err := choose(releases, flags.Arg(1))
	if err != nil {
		return err
	}
	file, err := filepath.Abs(filepath.Join(*into, fmt.Sprintf("%s-%s", flags.Arg(0), r.version)))
	if err != nil {
		return err
	}
	if err := r.install(ctx, p.binary, file); err != nil {
		return fmt.Errorf("%s %s: %w", flags.Arg(0), r.version, err)
	}
	fmt.Println(file)
	return nil
}

// install downloads a release, checks it, and puts its binary into a file.
func (r release) install(ctx context.Context, binary, file string) (err error) {
	want, err := r.checksum(ctx)
	if err != nil {
		return err
	}
	archive, err := os.CreateTemp("", "server")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close(), os.Remove(archive.Name())) }()
	got, err := download(ctx, r.archive, archive)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s has the checksum %s, and its release says %s", r.archive, got, want)
	}
	content, err := unpack(archive, binary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	out, err := os.OpenFile(file+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700) //nolint:gosec // the user names the folder
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close(), os.Rename(out.Name(), file))
}

// checksum returns the checksum that the release has for its archive.
func (r release) checksum(ctx context.Context) (string, error) {
	for _, list := range r.checksums {
		text, err := fetch(ctx, list)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			if sum, name, _ := strings.Cut(strings.TrimSpace(line), " "); strings.TrimLeft(name, " *") == base(r.archive) {
				return sum, nil
			}
		}
	}
	return "", errors.New("the release has no checksum for " + base(r.archive))
}

// get asks for a URL. The token is for GitHub's API, and for no other host.
func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token := os.Getenv("GITHUB_TOKEN"); token != "" && strings.HasPrefix(url, githubAPI) {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("%s: %s", url, resp.Status), resp.Body.Close())
	}
	return resp, err
}

// fetch returns what is at a URL.
func fetch(ctx context.Context, url string) ([]byte, error) {
	resp, err := get(ctx, url)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	return text, errors.Join(err, resp.Body.Close())
}

// download copies what is at a URL into a file and returns its checksum.
func download(ctx context.Context, url string, file io.Writer) (string, error) {
	resp, err := get(ctx, url)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	bar := &progress{name: base(url), size: resp.ContentLength, shown: time.Now()}
	_, err = io.Copy(io.MultiWriter(file, hash, bar), resp.Body)
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, resp.Body.Close())
}

// progress reports every two seconds how much of a file has arrived.
type progress struct {
	name       string
	size, done int64 // the size is -1 if the server does not say
	shown      time.Time
}

func (p *progress) Write(data []byte) (int, error) {
	p.done += int64(len(data))
	if time.Since(p.shown) > 2*time.Second {
		p.shown = time.Now()
		command.Progress("… %s: %d of %d MB", p.name, p.done>>20, p.size>>20)
	}
	return len(data), nil
}

// unpack opens the file of a name in an archive, which is a zip or a compressed tar.
func unpack(archive *os.File, name string) (io.ReadCloser, error) {
	info, err := archive.Stat()
	if err != nil {
		return nil, err
	}
	if files, err := zip.NewReader(archive, info.Size()); err == nil {
		return files.Open(name)
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return nil, err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("looking for %s: %w", name, err)
		}
		if header.Name == name {
			return io.NopCloser(files), nil
		}
	}
}
