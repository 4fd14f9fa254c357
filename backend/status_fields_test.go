// SPDX-License-Identifier: MPL-2.0

package backend

import "time"

// timestamp is a time as the engine's answers have it.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Names of fields of mdi/status, as tests use them.
const (
	fieldConfigured               = "configured"
	fieldCause                    = "cause"
	fieldDisclosed                = "disclosed"
	fieldFingerprint              = "fingerprint"
	fieldLiveLeases               = "live_leases"
	fieldIntentPending            = "intent_pending"
	fieldIntentStartedAt          = "intent_started_at"
	fieldConsecutiveFailures      = "consecutive_failures"
	fieldLastError                = "last_error"
	fieldLastErrorAt              = "last_error_at"
	fieldLastErrorCause           = "last_error_cause"
	fieldLastErrorCode            = "last_error_code"
	fieldLastErrorRequestID       = "last_error_request_id"
	fieldLastSuccessAt            = "last_success_at"
	fieldDue                      = "due"
	fieldNextRotation             = "next_rotation"
	fieldMissedRotation           = "missed_rotation"
	fieldMissedRotations          = "missed_rotations"
	fieldNextAttempt              = "next_attempt"
	fieldThrottledUntil           = "throttled_until"
	fieldDriftCheckedAt           = "drift_checked_at"
	fieldDriftResult              = "drift_result"
	fieldRootUnsettled            = "root_rotation_pending"
	fieldRootRetiring             = "root_credentials_retiring"
	fieldRootExpiresAt            = "root_credential_expires_at"
	fieldRootNextRotation         = "root_next_rotation"
	fieldRootFailures             = "root_consecutive_failures"
	fieldRootNextAttempt          = "root_next_attempt"
	fieldRootLastError            = "root_last_error"
	fieldRootLastErrorAt          = "root_last_error_at"
	fieldDisableAutomatedRotation = "disable_automated_rotation"
)
