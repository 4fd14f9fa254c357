// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const githubAPI = "https://api.github.com/"

// product is a server, and where its releases are listed.
type product struct {
	feed     string
	binary   string // in the archive
	releases func(text []byte) ([]release, error)
}

func products() map[string]product {
	return map[string]product{
		"vault":   {"https://releases.hashicorp.com/vault/index.json", "vault", vaultReleases},
		"openbao": {githubAPI + "repos/openbao/openbao/releases?per_page=100", "bao", openbaoReleases},
	}
}

// release is a version for this machine.
type release struct {
	version   version
	archive   string   // URL
	checksums []string // URLs of the lists of which one has it
}

// version is a released one: major, minor and patch.
type version [3]int

// released matches no beta, no candidate, and none of an edition such as 1.21.1+ent.
var released = regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)$`)

func parseVersion(text string) (v version, ok bool) {
	parts := released.FindStringSubmatch(text)
	for i := range parts[min(1, len(parts)):] {
		v[i], _ = strconv.Atoi(parts[i+1]) // digits
	}
	return v, parts != nil
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// line is what a version has in common with its patches.
func (v version) line() string { return fmt.Sprintf("%d.%d", v[0], v[1]) }

// choose returns the newest release, that of the line before, or that of a named line.
func choose(releases []release, which string) (release, error) {
	slices.SortFunc(releases, func(a, b release) int { return slices.Compare(b.version[:], a.version[:]) })
	for _, r := range releases {
		line, newest := r.version.line(), releases[0].version.line()
		if which == "newest" || which == line || which == "previous" && line != newest {
			return r, nil
		}
	}
	return release{}, errors.New("there is no release of " + which + " for this machine")
}

// vaultReleases reads HashiCorp's index. Its Community Edition has no suffix.
func vaultReleases(text []byte) (releases []release, err error) {
	var index struct {
		Versions map[string]struct {
			Shasums string
			Builds  []struct{ OS, Arch, URL string }
		}
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, err
	}
	for name, entry := range index.Versions {
		v, ok := parseVersion(name)
		for _, build := range entry.Builds {
			if ok && build.OS == runtime.GOOS && build.Arch == runtime.GOARCH {
				folder := strings.TrimSuffix(build.URL, base(build.URL))
				releases = append(releases, release{v, build.URL, []string{folder + entry.Shasums}})
			}
		}
	}
	return releases, nil
}

// openbaoReleases reads GitHub's list. Up to 2.5 the names of the files were others.
func openbaoReleases(text []byte) (releases []release, err error) {
	var list []struct {
		Tag               string `json:"tag_name"`
		Draft, Prerelease bool
		Assets            []struct {
			Name string
			URL  string `json:"browser_download_url"`
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	arch := cmp.Or(map[string]string{"amd64": "(amd64|x86_64)"}[runtime.GOARCH], runtime.GOARCH)
	for _, entry := range list {
		v, ok := parseVersion(entry.Tag)
		if !ok || entry.Draft || entry.Prerelease {
			continue
		}
		r := release{version: v}
		archive := regexp.MustCompile(`(?i)^(open)?bao_` + regexp.QuoteMeta(v.String()) + "_" + runtime.GOOS + "_" + arch + `\.tar\.gz$`)
		for _, asset := range entry.Assets {
			switch {
			case archive.MatchString(asset.Name):
				r.archive = asset.URL
			case strings.HasPrefix(asset.Name, "checksums") && strings.HasSuffix(asset.Name, ".txt"):
				r.checksums = append(r.checksums, asset.URL)
			}
		}
		if r.archive != "" {
			releases = append(releases, r)
		}
	}
	return releases, nil
}

func base(url string) string { return path.Base(url) }
