// SPDX-License-Identifier: MPL-2.0

package accesskey

import "time"

var (
	noon = time.Date(2027, 2, 28, 12, 0, 0, 0, time.UTC)
	home = Workspace{TenantID: "home", GraphRoot: "https://graph.microsoft.com"}
)
