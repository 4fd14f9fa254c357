// SPDX-License-Identifier: MPL-2.0

package backend

// What is expected of each cell of the fault matrix. The fields are those of a cell:
// answer, posts, key, state, next, done, hosts, reader.

var wantOfRead = []outcome{
	{"401 once, claims once, 429 for 1 s once", cell{"200", "2/1", "a new one", "", "the new key", "at once", "0/0", "0 s"}},
	{"content type", cell{"200", "1/1", "a new one", "", "the new key", "at once", "0/0", "0 s"}},
	{"401", cell{"400", "2/0", "the old one", "failed", "the old key", "at once", "0/0", "fault + 2 s"}},
	{"403, 404", cell{"400", "1/0", "the old one", "failed", "the old key", "at once", "0/0", "fault + 2 s"}},
	{"429, 503", cell{"503", "3/0", "the old one", "failed", "the old key", "at once", "0/0", "fault + 2 s"}},
	{"429 for 315 s", cell{"503", "1/0", "the old one", "failed, throttled for 5 min", "the old key", "at once", "0/0", "fault + 180 s"}},
	{"doubtful, unsigned", cell{"503", "2/0", "the old one", "failed, on watch", "the old key, a warning", "at once", "0/0", "fault + 2 s"}},
	{"doubtful after, unsigned after, useless", cell{"503", "2/2", "a new one, found", "failed, on watch", "the new key, a warning", "at once", "0/0", "fault + 2 s"}},
	{"late", cell{"503", "2/2", "the old one", "failed, on watch", "the new key, a warning", "at once", "0/3", "fault + 2 s"}},
	{"old key", cell{"503", "2/0", "the old one", "failed, on watch", "the old key, a warning", "at once", "0/0", "fault + 2 s"}},
	{"old key after", cell{"503", "2/2", "a new one, found", "failed, on watch", "the new key, a warning", "at once", "0/0", "fault + 2 s"}},
	{"slow", cell{"503", "1/1", "a new one", "", "the new key", "at once", "0/0", "fault + 0 s"}},
}

var wantOfRotateKey = []outcome{
	{"401 once, claims once, 429 for 1 s once", cell{"200", "2/1", "a new one", "", "the new key", "at once", "0/0", "1 s"}},
	{"content type", cell{"200", "1/1", "a new one", "", "the new key", "at once", "0/0", "1 s"}},
	{"401", cell{"400", "2/0", "the old one", "failed, wanted", "the old key", "1 min", "0/0", "fault + 61 s"}},
	{"403, 404", cell{"400", "1/0", "the old one", "failed, wanted", "the old key", "1 min", "0/0", "fault + 61 s"}},
	{"429, 503", cell{"503", "3/0", "the old one", "failed, wanted", "the old key", "1 min", "0/0", "fault + 61 s"}},
	{"429 for 315 s", cell{"503", "1/0", "the old one", "failed, wanted, throttled for 5 min", "the old key", "1 min", "0/0", "fault + 61 s"}},
	{"doubtful, unsigned", cell{"503", "3/0", "the old one", "failed, on watch, wanted", "the old key, a warning", "1 min", "0/0", "fault + 61 s"}},
	{"doubtful after, unsigned after, useless", cell{"503", "3/3", "a new one, found", "failed, on watch, wanted", "the new key, a warning", "1 min", "0/0", "fault + 61 s"}},
	{"late", cell{"503", "3/3", "the old one", "failed, on watch, wanted", "the new key, a warning", "1 min", "0/8", "fault + 61 s"}},
	{"old key", cell{"503", "3/0", "the old one", "failed, on watch, wanted", "the old key, a warning", "1 min", "0/0", "fault + 61 s"}},
	{"old key after", cell{"503", "3/3", "a new one, found", "failed, on watch, wanted", "the new key, a warning", "1 min", "0/0", "fault + 61 s"}},
	{"slow", cell{"503", "1/1", "a new one", "", "the new key", "at once", "0/0", "fault + 1 s"}},
}

var wantOfRotation = []outcome{
	{"401 once, claims once, 429 for 1 s once", cell{"", "2/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "0 s"}},
	{"content type", cell{"", "1/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "0 s"}},
	{"401", cell{"", "2/0", "the old one", "failed, retry after 1 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 0 s"}},
	{"403, 404", cell{"", "1/0", "the old one", "failed, retry after 1 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 0 s"}},
	{"429, 503", cell{"", "3/0", "the old one", "failed, retry after 1 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 0 s"}},
	{"429 for 315 s", cell{"", "1/0", "the old one", "failed, retry after 5 min, throttled for 5 min, comparison: unchanged", "the old key", "6 min", "0/0", "fault + 180 s"}},
	{"doubtful, unsigned", cell{"", "1/0", "the old one", "failed, on watch, retry after 1 min, comparison: unchanged", "the old key, a warning", "1 min", "0/0", "fault + 0 s"}},
	{"doubtful after, unsigned after, useless", cell{"", "1/1", "a new one, found", "failed, on watch, retry after 1 min, comparison: unchanged", "the new key, a warning", "at once", "0/0", "fault + 0 s"}},
	{"late", cell{"", "1/1", "the old one", "failed, on watch, retry after 1 min, comparison: unchanged", "the new key, a warning", "at once", "0/5", "fault + 0 s"}},
	{"old key", cell{"", "1/0", "the old one", "failed, on watch, retry after 1 min, comparison: unchanged", "the old key, a warning", "1 min", "0/0", "fault + 0 s"}},
	{"old key after", cell{"", "1/1", "a new one, found", "failed, on watch, retry after 1 min, comparison: unchanged", "the new key, a warning", "at once", "0/0", "fault + 0 s"}},
	{"slow", cell{"", "1/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "fault + 1 s"}},
}

var wantOfRotationGet = []outcome{
	{"401 once, claims once, 429 for 1 s once, content type", cell{"", "1/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "0 s"}},
	{"401, 403, 404, 429, 503, doubtful, unsigned, useless, slow", cell{"", "0/0", "the old one", "failed, retry after 1 min, comparison: failed", "the old key, a warning", "1 min", "0/0", "0 s"}},
	{"429 for 315 s", cell{"", "0/0", "the old one", "failed, retry after 5 min, throttled for 5 min, comparison: failed", "the old key, a warning", "6 min", "0/0", "fault + 180 s"}},
}

var wantOfRetirement = []outcome{
	{"401 once, claims once, 429 for 1 s once", cell{"", "2/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "0 s"}},
	{"content type", cell{"", "1/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "0 s"}},
	{"401", cell{"", "2/0", "the old one", "failed, retry after 1 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 0 s"}},
	{"403, 404", cell{"", "1/0", "the old one", "failed, retry after 1 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 0 s"}},
	{"429, 503", cell{"", "3/0", "the old one", "failed, retry after 1 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 0 s"}},
	{"429 for 315 s", cell{"", "1/0", "the old one", "failed, retry after 5 min, throttled for 5 min, comparison: unchanged", "the old key", "1 min", "0/0", "fault + 180 s"}},
	{"doubtful, unsigned", cell{"", "1/0", "the old one", "failed, on watch, retry after 1 min, comparison: unchanged", "the old key, a warning", "1 min", "0/0", "fault + 0 s"}},
	{"doubtful after, unsigned after, useless", cell{"", "1/1", "a new one, found", "failed, on watch, retry after 1 min, comparison: unchanged", "the new key, a warning", "at once", "0/0", "fault + 0 s"}},
	{"late", cell{"", "1/1", "the old one", "failed, on watch, retry after 1 min, comparison: unchanged", "the new key, a warning", "1 min", "0/3", "fault + 0 s"}},
	{"old key", cell{"", "1/0", "the old one", "failed, on watch, retry after 1 min, comparison: unchanged", "the old key, a warning", "1 min", "0/0", "fault + 0 s"}},
	{"old key after", cell{"", "1/1", "a new one, found", "failed, on watch, retry after 1 min, comparison: unchanged", "the new key, a warning", "at once", "0/0", "fault + 0 s"}},
	{"slow", cell{"", "1/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "fault + 1 s"}},
}

var wantOfRetirementGet = []outcome{
	{"401 once, claims once, 429 for 1 s once, content type", cell{"", "1/1", "a new one", "comparison: unchanged", "the new key", "at once", "0/0", "0 s"}},
	{"401, 403, 404, 429, 503, 429 for 315 s, doubtful, 200 without a key, empty 200, half an answer, two keys", cell{"", "1/1", "a new one", "comparison: failed", "the new key", "at once", "0/0", "0 s"}},
	{"unsigned, lost answer, reset after, slow", cell{"", "0/0", "the old one", "failed, retry after 1 min, comparison: failed", "the old key, a warning", "1 min", "0/0", "0 s"}},
}

var wantOfComparison = []outcome{
	{"401 once, claims once, 429 for 1 s once, content type", cell{"200", "0/0", "the old one", "comparison: unchanged", "the old key", "at once", "0/0", "0 s"}},
	{"401, 403, 404, 429, 503, doubtful, unsigned, useless, slow", cell{"200, a warning", "0/0", "the old one", "comparison: failed", "the old key, a warning", "1 min", "0/0", "0 s"}},
	{"429 for 315 s", cell{"200, a warning", "0/0", "the old one", "throttled for 5 min, comparison: failed", "the old key, a warning", "5 min", "0/0", "fault + 180 s"}},
}

var wantOfTickComparison = []outcome{
	{"401 once, claims once, 429 for 1 s once, content type", cell{"", "0/0", "the old one", "comparison: unchanged", "the old key", "at once", "0/0", "0 s"}},
	{"401, 403, 404, 429, 503, doubtful, unsigned, useless, slow", cell{"", "0/0", "the old one", "comparison: failed", "the old key, a warning", "2 min", "0/0", "0 s"}},
	{"429 for 315 s", cell{"", "0/0", "the old one", "throttled for 5 min, comparison: failed", "the old key, a warning", "6 min", "0/0", "fault + 180 s"}},
}

var wantOfLostThenGet = []outcome{
	{"401 once, claims once, 429 for 1 s once, content type", cell{"200, a warning", "2/2", "a new one", "on watch, comparison: unchanged", "the new key, a warning", "at once", "0/0", "2 s"}},
	{"401, 403, 404, 429, 503, doubtful, unsigned, useless, slow", cell{"503", "1/1", "in doubt", "failed, on watch, comparison: failed", "503", "8 s", "28/0", "30 s"}},
	{"429 for 315 s", cell{"503", "1/1", "in doubt", "failed, on watch, throttled for 5 min, comparison: failed", "503", "298 s", "58/0", "fault + 240 s"}},
}

var wantOfBoth = []outcome{
	{"401 once, claims once, 429 for 1 s once", cell{"200", "2/1", "a new one", "", "the new key", "at once", "0/0", "0 s"}},
	{"content type", cell{"200", "1/1", "a new one", "", "the new key", "at once", "0/0", "0 s"}},
	{"401", cell{"400", "2/0", "the old one", "failed", "the old key", "at once", "0/0", "fault + 2 s"}},
	{"403, 404", cell{"400", "1/0", "the old one", "failed", "the old key", "at once", "0/0", "fault + 2 s"}},
	{"429, 503", cell{"503", "3/0", "the old one", "failed", "the old key", "at once", "0/0", "fault + 2 s"}},
	{"429 for 315 s", cell{"503", "1/0", "the old one", "failed, throttled for 5 min", "the old key", "at once", "0/0", "fault + 240 s"}},
	{"doubtful, unsigned", cell{"503", "1/0", "in doubt", "failed, on watch, comparison: failed", "503", "8 s", "59/0", "fault + 29 s"}},
	{"useless", cell{"503", "1/1", "in doubt", "failed, on watch, comparison: failed", "503", "8 s", "59/0", "fault + 29 s"}},
	{"slow", cell{"503", "1/1", "a new one", "", "the new key", "at once", "60/0", "fault + 0 s"}},
}
