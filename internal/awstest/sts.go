package awstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// An issued credential.
type issued struct {
	Credentials
	expires time.Time
	uses    int
	expired bool
}

// Credentials are what requests to ECR are signed with.
type Credentials struct {
	// AccessKeyID is not a secret.
	AccessKeyID string
	// SecretAccessKey signs.
	SecretAccessKey string
	// SessionToken goes with temporary credentials; empty with others.
	SessionToken string
}

// NewCredentials issues credentials of a user, without a session token, that
// do not expire by themselves: for the environment, or a profile.
func (s *Server) NewCredentials() Credentials {
	return s.issue(fmt.Sprintf("AKIA%016d", s.next()), "", time.Time{})
}

func (s *Server) issue(id, session string, expires time.Time) Credentials {
	c := Credentials{AccessKeyID: id, SecretAccessKey: s.secret("secret/"), SessionToken: session}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials[id] = &issued{Credentials: c, expires: expires}
	return c
}

// ExpireCredentials ends all credentials that were issued so far.
func (s *Server) ExpireCredentials() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.credentials {
		c.expired = true
	}
}

var (
	roleARN     = regexp.MustCompile(`^arn:aws[a-z-]*:iam::(\d{12}):role/(?:[\w+=,.@-]+/)*([\w+=,.@-]{1,64})$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

// As in https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html.
type stsAnswer struct {
	XMLName xml.Name   `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleWithWebIdentityResponse"`
	Result  *stsResult `xml:"AssumeRoleWithWebIdentityResult"`
}

type stsResult struct {
	Subject     string `xml:"SubjectFromWebIdentityToken"`
	Audience    string
	Provider    string
	AssumedRole struct {
		Arn           string
		AssumedRoleId string //lint:ignore ST1003 the name is AWS's
	} `xml:"AssumedRoleUser"`
	Credentials *stsCredentials
}

type stsCredentials struct {
	AccessKeyId, SecretAccessKey, SessionToken, Expiration string //lint:ignore ST1003 the names are AWS's
}

type stsError struct {
	XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Error   struct{ Type, Code, Message string }
}

func (s *Server) serveSTS(w http.ResponseWriter, r *http.Request, request *Request, q Quirks) {
	switch {
	case s.shows("STSCut", q.STSCut, q.STSCutCount):
		s.cut(request)
	case s.shows("STSNoAnswer", q.STSNoAnswer, q.STSNoAnswerCount):
		<-r.Context().Done()
		s.cut(request)
	case s.shows("STSStatus", q.STSStatus != 0, q.STSStatusCount):
		s.record(request, http.StatusText(q.STSStatus))
		http.Error(w, "<html>"+http.StatusText(q.STSStatus)+"</html>", q.STSStatus)
		return
	}
	duration, refused := s.checkAssume(r, request, q)
	if refused != nil {
		s.record(request, refused.code)
		var answer stsError
		answer.Error.Type, answer.Error.Code, answer.Error.Message = "Sender", refused.code, refused.message
		writeXML(w, refused.status, answer)
		return
	}
	s.record(request, "")
	account := roleARN.FindStringSubmatch(request.Form.Get("RoleArn"))
	result := &stsResult{Subject: "repo:pytorch/pytorch:ref:refs/heads/main", Audience: Audience}
	result.Provider = "arn:aws:iam::" + account[1] + ":oidc-provider/token.actions.githubusercontent.com"
	result.AssumedRole.Arn = "arn:aws:sts::" + account[1] + ":assumed-role/" + account[2] + "/" + request.Form.Get("RoleSessionName")
	result.AssumedRole.AssumedRoleId = "AROA0000000000000000:" + request.Form.Get("RoleSessionName")
	if !q.NoCredentials {
		expires := s.now(q).Add(orElse(q.CredentialsLifetime, duration))
		c := s.issue(fmt.Sprintf("ASIA%016d", s.next()), s.secret("session/"), expires)
		result.Credentials = &stsCredentials{c.AccessKeyID, c.SecretAccessKey, c.SessionToken, expires.UTC().Format(time.RFC3339)}
		if q.NoSessionToken {
			result.Credentials.SessionToken = ""
		}
	}
	writeXML(w, http.StatusOK, stsAnswer{Result: result})
}

// checkAssume returns the duration that was asked for, or why it is refused.
func (s *Server) checkAssume(r *http.Request, request *Request, q Quirks) (time.Duration, *refusal) {
	form := request.Form
	role, token := form.Get("RoleArn"), form.Get("WebIdentityToken")
	validation := func(value, name, constraint string) *refusal {
		return &refusal{http.StatusBadRequest, "ValidationError", fmt.Sprintf("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: %s", value, name, constraint)}
	}
	seconds, err := strconv.Atoi(orElse(form.Get("DurationSeconds"), "3600"))
	duration := time.Duration(seconds) * time.Second
	switch {
	case r.Method != http.MethodPost || form.Get("Action") != "AssumeRoleWithWebIdentity" || form.Get("Version") != "2011-06-15":
		return 0, &refusal{http.StatusBadRequest, "InvalidAction", "Could not find operation " + form.Get("Action")}
	case r.Header.Get("Authorization") != "":
		return 0, &refusal{http.StatusForbidden, "SignatureDoesNotMatch", "this server wants the request unsigned: there may be no credentials yet"}
	case s.shows("STSThrottled", q.STSThrottled, q.STSThrottledCount):
		return 0, &refusal{http.StatusBadRequest, "Throttling", "Rate exceeded"}
	case s.shows("IDPCommunicationError", q.IDPCommunicationError, q.IDPCommunicationErrorCount):
		return 0, &refusal{http.StatusBadRequest, "IDPCommunicationError", "The request could not be fulfilled because the identity provider (IDP) that was asked to verify the incoming identity token could not be reached."}
	case q.QuoteIDToken:
		return 0, validation(token, "webIdentityToken", "Member must satisfy regular expression pattern")
	case !roleARN.MatchString(role):
		return 0, validation(role, "roleArn", "Member must have length greater than or equal to 20")
	case !sessionName.MatchString(form.Get("RoleSessionName")):
		return 0, validation(form.Get("RoleSessionName"), "roleSessionName", `Member must satisfy regular expression pattern: [\w+=,.@-]*`)
	case err != nil || seconds < 900 || seconds > 43200:
		return 0, validation(form.Get("DurationSeconds"), "durationSeconds", "Member must have value between 900 and 43200")
	}
	// From here on the token has been looked at, so it is used up.
	if refused := s.useIDToken(token, q); refused != nil {
		return 0, refused
	}
	switch {
	case s.shows("InvalidIdentityToken", q.InvalidIdentityToken, q.InvalidIdentityTokenCount):
		return 0, &refusal{http.StatusBadRequest, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements"}
	case s.shows("ExpiredIDToken", q.ExpiredIDToken, q.ExpiredIDTokenCount):
		return 0, &refusal{http.StatusBadRequest, "ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time"}
	case q.RoleDenied || q.Role != "" && q.Role != role:
		return 0, &refusal{http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"}
	case duration > orElse(q.MaxDuration, 12*time.Hour):
		return 0, &refusal{http.StatusBadRequest, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."}
	}
	return duration, nil
}

func writeXML(w http.ResponseWriter, status int, answer any) {
	text, err := xml.Marshal(answer)
	if err != nil {
		panic(err) // the types are of this file
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
