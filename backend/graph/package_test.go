// SPDX-License-Identifier: MPL-2.0

package graph

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPackageInAnswers(t *testing.T) {
	want := Package{DownloadURL: "https://host/file.zip", Version: "2.1"}
	for name, test := range map[string]struct {
		body   string
		reason string
	}{
		"root":       {`{"downloadUrl":"https://host/file.zip","version":"2.1"}`, ""},
		"value":      {`{"value":{"downloadUrl":"https://host/file.zip","version":"2.1"}}`, ""},
		"no version": {`{"downloadUrl":"https://host/file.zip"}`, "the answer contains no address and version of a package"},
		"no address": {`{"value":{"version":"2.1"}}`, "the answer contains no address and version of a package"},
		"nothing":    {`{}`, "the answer contains no address and version of a package"},
		"a page":     {`<html>`, reasonUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			client := served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(test.body)) }, nil)
			found, err := client.DeploymentPackage(t.Context())
			if test.reason == "" {
				require.NoError(t, err)
				require.Equal(t, want, found)
			} else {
				require.Equal(t, test.reason, failed(t, err).Reason)
				require.Zero(t, found)
			}
		})
	}
}

func TestAMissingPermissionForThePackageIsItsOwn(t *testing.T) {
	hint := (&Error{Op: OpPackage, Status: 403}).Hint()
	require.Contains(t, hint, PackagePermission)
	require.NotContains(t, hint, Permission)
}

func TestWhereAPackageMayComeFrom(t *testing.T) {
	for address, want := range map[string]bool{
		"https://contoso.mdi.securitycenter.microsoft.com/package.zip": true,
		"https://CONTOSO.MDI.SecurityCenter.Microsoft.US:443/x":        true,
		"http://contoso.mdi.securitycenter.microsoft.com/x":            false,
		"https://contoso.mdi.securitycenter.microsoft.com:8443":        false,
		"https://u@contoso.mdi.securitycenter.microsoft.com/x":         false,
		"https://mdi.securitycenter.microsoft.com/x":                   false,
		"https://.mdi.securitycenter.microsoft.com/x":                  false,
		"https://mdi.securitycenter.microsoft.com.evil.com/x":          false,
		"https://evilmdi.securitycenter.microsoft.com/x":               false,
		"https://evil.com/.mdi.securitycenter.microsoft.com":           false,
		"://": false,
	} {
		require.Equal(t, want, Package{DownloadURL: address}.Documented(), address)
	}
}
