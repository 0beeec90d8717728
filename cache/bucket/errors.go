package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/dockercache/dockercache/internal/wait"
)

// ErrNoConditions is wrapped when the server does not keep, or refuses, the conditions of writes, so that
// writers cannot be ordered, see [Options.Unconditional].
var ErrNoConditions = errors.New("the server ignores the conditions of writes")

// An Error is a request to the server that failed. It wraps [fs.ErrNotExist] for an
// object that is not there, and [fs.ErrPermission] for what is not allowed.
type Error struct {
	// Op is the request, as S3's API calls it, such as UploadPart.
	Op string
	// Address is what it was about.
	Address string
	// Action is the action that a policy of IAM must allow, such as s3:PutObject.
	Action string
	// Code and Status are what the server answered; empty if it did not.
	Code   string
	Status int
	// Err is the cause.
	Err error
}

// actions are the actions that requests need, by
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html.
var actions = map[string]string{
	"HeadObject": "s3:GetObject", "GetObject": "s3:GetObject", "PutObject": "s3:PutObject", "CreateMultipartUpload": "s3:PutObject",
	"UploadPart": "s3:PutObject", "UploadPartCopy": "s3:PutObject, and s3:GetObject of the source", "CompleteMultipartUpload": "s3:PutObject", "AbortMultipartUpload": "s3:AbortMultipartUpload",
	"ListParts": "s3:ListMultipartUploadParts", "ListMultipartUploads": "s3:ListBucketMultipartUploads", "ListObjectsV2": "s3:ListBucket", "DeleteObject": "s3:DeleteObject", "GetObjectTagging": "s3:GetObjectTagging",
}

// Error says what failed, why, and what to do.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s %s: ", e.Op, e.Address)
	var api smithy.APIError
	switch {
	case errors.As(e.Err, &api) && e.Code != "":
		text += clean(e.Code)
		if m := api.ErrorMessage(); m != "" && m != e.Code {
			text += ": " + clean(m)
		}
		text += fmt.Sprintf(" (status %d)", e.Status)
	case e.Status != 0 && responseOf(e.Err) != nil:
		text += fmt.Sprintf("status %d %s", e.Status, http.StatusText(e.Status))
	default:
		text += clean(innermost(e.Err).Error())
	}
	if advice := e.advice(); advice != "" {
		text += ": " + advice
	}
	return text
}

// secrets are credentials, which some servers repeat in their answers.
var secrets = regexp.MustCompile(`(?i)(x-amz-(?:signature|credential|security-token)=|\bsignature=|\bcredential=)[^&\s",]+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}`)

// clean makes a line of what a server answered, without credentials and not without end.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = secrets.ReplaceAllString(text, "${1}…")
	if most := 500; len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// innermost returns the error below those of the SDK, which repeat the operation and the
// address.
func innermost(err error) error {
	var op *smithy.OperationError
	if errors.As(err, &op) {
		err = op.Err
	}
	var attempts *awsAttempts
	if errors.As(err, &attempts) {
		err = attempts.Err
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		err = send.Err
	}
	return err
}

func (e *Error) advice() string {
	switch e.Code {
	case "AccessDenied", "Forbidden", "AllAccessDisabled":
		return "the credentials need " + e.Action
	case "NoSuchBucket":
		return "create the bucket, or correct its name or the endpoint (AWS_ENDPOINT_URL_S3)"
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently":
		if is := bucketRegion(responseOf(e.Err)); is != "" {
			return "the bucket is in the region " + is + ": set AWS_REGION to it, and correct the endpoint if one is given (AWS_ENDPOINT_URL_S3)"
		}
		return "the bucket is in another region: set AWS_REGION to its own"
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return "the credentials have expired, and the environment gave no others"
	case "RequestTimeTooSkewed":
		return "set this machine's clock"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return "check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, and so on)"
	}
	switch {
	case e.Status == http.StatusForbidden:
		return "the credentials need " + e.Action
	case isUnexplained(responseOf(e.Err)):
		return "the server gives no reason for this request: the credentials may have expired"
	case e.Status == 0 && strings.Contains(e.Err.Error(), "get credentials:"):
		return "there are no credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role, and so on)"
	case e.Status == 0 && errors.As(e.Err, new(*net.OpError)):
		return "check the endpoint (AWS_ENDPOINT_URL_S3) and the network"
	}
	return ""
}

// Unwrap returns the cause, and what it means.
func (e *Error) Unwrap() []error {
	errs := []error{e.Err}
	switch {
	case e.Status == http.StatusNotFound && e.Code != "NoSuchBucket": // an address that is wrong is another matter
		errs = append(errs, fs.ErrNotExist)
	case e.Status == http.StatusForbidden:
		errs = append(errs, fs.ErrPermission)
	}
	return errs
}

// wrap returns the error of a request as an [*Error], or that of ctx.
func (b *Bucket) wrap(ctx context.Context, op, name string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return wait.Err(ctx)
	}
	e := &Error{Op: op, Address: b.address(name), Action: actions[op], Err: err}
	if op == "CreateMultipartUpload" && len(b.options.Tags) > 0 {
		e.Action += ", and s3:PutObjectTagging for the tags"
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		e.Code = api.ErrorCode()
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		e.Status = response.HTTPStatusCode()
	}
	return e
}

// hasStatus reports whether an error is an answer with one of some status codes.
func hasStatus(err error, codes ...int) bool {
	var e *Error
	return errors.As(err, &e) && slices.Contains(codes, e.Status)
}

// isPrecondition reports whether a condition of a request did not hold. S3 answers 404 when
// the object that a condition names is gone.
func isPrecondition(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusPreconditionFailed || e.Code == "PreconditionFailed" || e.Code == "NoSuchKey")
}

// isConflict reports whether a conditional write met another one at the same time, after which
// the upload is begun again.
func isConflict(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == "ConditionalRequestConflict" || e.Status == http.StatusConflict)
}

// isGone reports whether an upload is no longer there: completed or aborted by another.
func isGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == "NoSuchUpload"
}

// isNoBucket reports whether it is the bucket that is not there.
func isNoBucket(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == "NoSuchBucket"
}
