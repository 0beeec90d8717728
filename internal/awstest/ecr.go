package awstest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
)

// Account is the one of the registry that ECR answers for by default.
const Account = "123456789012"

var targets = map[string]string{
	ECR:       "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
	ECRPublic: "SpencerFrontendService.GetAuthorizationToken",
}

// As in https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html.
type ecrAuthorization struct {
	Token    string  `json:"authorizationToken"`
	Expires  float64 `json:"expiresAt,omitempty"` // seconds since 1970
	Endpoint string  `json:"proxyEndpoint,omitempty"`
}

func (s *Server) serveECR(w http.ResponseWriter, r *http.Request, request *Request, q Quirks) {
	if s.shows("ECRNoAnswer", q.ECRNoAnswer, q.ECRNoAnswerCount) {
		<-r.Context().Done()
		s.cut(request)
	}
	if s.shows("ECRStatus", q.ECRStatus != 0, q.ECRStatusCount) {
		s.record(request, http.StatusText(q.ECRStatus))
		http.Error(w, "<html>"+http.StatusText(q.ECRStatus)+"</html>", q.ECRStatus)
		return
	}
	refused := s.checkSignature(r, request, q)
	var input struct{ RegistryIDs []string }
	switch {
	case refused != nil:
	case r.Method != http.MethodPost || r.Header.Get("X-Amz-Target") != targets[request.Service]:
		refused = &refusal{http.StatusBadRequest, "UnknownOperationException", ""}
	case json.Unmarshal([]byte(request.Body), &input) != nil || len(input.RegistryIDs) > 1:
		refused = &refusal{http.StatusBadRequest, "InvalidParameterException", "Invalid parameter"}
	case s.shows("ECRThrottled", q.ECRThrottled, q.ECRThrottledCount):
		refused = &refusal{http.StatusBadRequest, "ThrottlingException", "Rate exceeded"}
	case q.ECRDenied:
		refused = &refusal{http.StatusBadRequest, "AccessDeniedException", "User is not authorized to perform: ecr:GetAuthorizationToken on resource: * because no identity-based policy allows the ecr:GetAuthorizationToken action"}
	}
	if refused != nil {
		s.record(request, refused.code)
		writeJSON(w, refused.status, map[string]string{"__type": refused.code, "message": refused.message})
		return
	}
	s.record(request, "")
	account := Account
	if len(input.RegistryIDs) > 0 {
		account = input.RegistryIDs[0]
	}
	authorization := s.authorize("https://"+orElse(q.OtherAccount, account)+".dkr.ecr."+request.Region+".amazonaws.com", q)
	switch {
	case q.NoAuthorization:
		writeJSON(w, http.StatusOK, map[string]any{})
	case request.Service == ECRPublic: // an object, and no endpoint
		authorization.Endpoint = ""
		writeJSON(w, http.StatusOK, map[string]any{"authorizationData": authorization})
	default: // a list of one
		writeJSON(w, http.StatusOK, map[string]any{"authorizationData": []ecrAuthorization{authorization}})
	}
}

// authorize makes up a password.
func (s *Server) authorize(endpoint string, q Quirks) ecrAuthorization {
	password := s.secret("password-")
	expires := s.now(q).Add(orElse(q.PasswordLifetime, 12*time.Hour))
	s.mu.Lock()
	s.passwords[password] = expires
	s.mu.Unlock()
	user := "AWS:"
	if q.MalformedAuthorization {
		user = ""
	}
	a := ecrAuthorization{base64.StdEncoding.EncodeToString([]byte(user + password)), float64(expires.UnixMilli()) / 1000, endpoint}
	if q.NotBase64 {
		a.Token += "!"
	}
	if q.NoExpiry {
		a.Expires = 0
	}
	s.note(a.Token)
	return a
}

// GoodPassword reports whether a registry shall accept a password: whether ECR
// issued it and it has not expired.
func (s *Server) GoodPassword(user, password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expires, ok := s.passwords[password]
	return ok && user == "AWS" && s.now(s.quirks).Before(expires)
}

// ExpirePasswords ends all passwords that were issued so far.
func (s *Server) ExpirePasswords() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.passwords)
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // fails when the client is gone
}
