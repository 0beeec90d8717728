package buckettest

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// An answer is what a request is answered with.
type answer struct {
	status int // 0 is 200
	code   string
	header http.Header
	body   []byte // XML
	// object is the content of an object, if not nil.
	object []byte
}

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// ok answers with XML.
func ok(body any) *answer {
	out, err := xml.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &answer{header: http.Header{}, body: append([]byte(xml.Header), out...)}
}

func noContent() *answer { return &answer{status: http.StatusNoContent, header: http.Header{}} }

type element struct {
	XMLName xml.Name
	Value   string `xml:",chardata"`
}

// refuse answers with an error. More elements of it are pairs of name and value.
func refuse(status int, code, message string, more ...string) *answer {
	var body struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
		More          []element
		RequestID     string `xml:"RequestId"`
		HostID        string `xml:"HostId"`
	}
	body.Code, body.Message, body.RequestID, body.HostID = code, message, "BUCKETTEST", "buckettest"
	for i := 0; i < len(more); i += 2 {
		body.More = append(body.More, element{xml.Name{Local: more[i]}, more[i+1]})
	}
	a := ok(body)
	a.status, a.code = status, code
	return a
}

func denied() *answer { return refuse(http.StatusForbidden, "AccessDenied", "Access Denied") }

func notImplemented() *answer {
	return refuse(http.StatusNotImplemented, "NotImplemented", "A header or query you provided implies functionality that is not implemented.")
}

func noSuchKey(key string) *answer {
	return refuse(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.", "Key", key)
}

func noSuchUpload(id string) *answer {
	return refuse(http.StatusNotFound, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.", "UploadId", id)
}

func preconditionFailed(condition string) *answer {
	return refuse(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold", "Condition", condition)
}

func invalidArgument(message, name, value string) *answer {
	return refuse(http.StatusBadRequest, "InvalidArgument", message, "ArgumentName", name, "ArgumentValue", value)
}

func invalidRequest(message string) *answer {
	return refuse(http.StatusBadRequest, "InvalidRequest", message)
}

func malformedXML() *answer {
	return refuse(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}

// send answers a request. An error of HEAD has no body, so that its code is unknown to
// the client.
func (c *call) send(w http.ResponseWriter, a *answer) {
	status := cmp.Or(a.status, http.StatusOK)
	c.mu.Lock()
	id := c.next()
	c.mu.Unlock()
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	h.Set("Date", c.now().UTC().Format(http.TimeFormat))
	h.Set("Server", "AmazonS3")
	h.Set("X-Amz-Request-Id", fmt.Sprintf("%016X", id))
	h.Set("X-Amz-Id-2", "buckettest")
	switch {
	case c.request.Method == http.MethodHead && status >= 300, status == http.StatusNoContent, status == http.StatusNotModified:
	case a.object != nil:
		h.Set("Content-Length", strconv.Itoa(len(a.object)))
	default:
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		if len(a.body) > 0 {
			h.Set("Content-Type", "application/xml")
		}
	}
	c.mu.Lock()
	c.record.Status, c.record.Code = status, a.code
	c.mu.Unlock()
	w.WriteHeader(status)
	switch {
	case c.request.Method == http.MethodHead:
	case a.object != nil:
		c.sendContent(w, a.object)
	default:
		_, _ = w.Write(a.body)
	}
}

// iso is a time in XML.
func iso(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
