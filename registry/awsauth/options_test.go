package awsauth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOptions(t *testing.T) {
	for _, o := range []*Options{
		nil, {},
		{RoleARN: "arn:aws:iam::308535385114:role/gha_workflow_s3_and_ecr_read_only", Duration: 18000 * time.Second},
		{RoleARN: "arn:aws-us-gov:iam::308535385114:role/a/path/name"},
		{RoleARN: "arn:aws-cn:iam::308535385114:role/name+=,.@-_"},
		{Duration: 15 * time.Minute}, {Duration: 12 * time.Hour},
		{SessionName: "ab"}, {SessionName: "GitHubActions"}, {SessionName: "a_b+=,.@-9"}, {Region: "us-gov-west-1"},
	} {
		_, err := NewKeychain(o)
		assert.NoError(t, err, "%+v", o)
	}
	long := string(make([]byte, 65))
	for _, c := range []struct {
		Options
		what, advice string
	}{
		{Options{RoleARN: "gha_role"}, `RoleARN "gha_role"`, "arn:aws:iam::123456789012:role/name"},
		{Options{RoleARN: "arn:aws:iam::30853538511:role/name"}, "RoleARN", "arn:"},
		{Options{RoleARN: "arn:aws:iam::308535385114:user/name"}, "RoleARN", "arn:"},
		{Options{RoleARN: "arn:aws:iam::308535385114:role/"}, "RoleARN", "arn:"},
		{Options{RoleARN: "arn:aws:iam::308535385114:role/na me"}, "RoleARN", "arn:"},
		{Options{RoleARN: testRole + "\n::error::forged"}, "RoleARN", "arn:"},
		{Options{Region: "us-east-1.evil.com/"}, `Region "us-east-1.evil.com/"`, "us-east-1"},
		{Options{Region: "us east"}, "Region", "us-east-1"},
		{Options{Duration: time.Second}, "Duration is 1s", "15m to 12h"},
		{Options{Duration: 15*time.Minute - time.Second}, "Duration is 14m59s", "15m to 12h"},
		{Options{Duration: 12*time.Hour + time.Second}, "Duration is 12h0m1s", "15m to 12h"},
		{Options{Duration: -time.Hour}, "Duration is -1h0m0s", "15m to 12h"},
		{Options{Duration: time.Hour + time.Millisecond}, "Duration is 1h0m0.001s", "whole seconds"},
		{Options{SessionName: "x"}, `SessionName "x"`, "2 to 64"},
		{Options{SessionName: "a b"}, "SessionName", "2 to 64"},
		{Options{SessionName: "naïve"}, "SessionName", "2 to 64"},
		{Options{SessionName: long}, "SessionName", "2 to 64"},
	} {
		_, err := NewKeychain(&c.Options)
		var typed *Error
		require.ErrorAs(t, err, &typed)
		require.ErrorIs(t, err, ErrInvalidOptions)
		assert.ErrorContains(t, err, c.what)
		assert.Contains(t, typed.Advice, c.advice)
		assert.NotContains(t, err.Error(), "\n")
	}
}
