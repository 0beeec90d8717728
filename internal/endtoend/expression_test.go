package endtoend

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An expression is what stands in a workflow's ${{ }}, as far as the workflow of
// this project has it: contexts, 'text', ==, !=, &&, || and parentheses.
// https://docs.github.com/en/actions/reference/evaluate-expressions-in-workflows-and-actions
type expression struct {
	tokens []string
	values map[string]string // of contexts; what is missing is ""
}

var tokens = regexp.MustCompile(`\s*('[^']*'|==|!=|&&|\|\||[()]|[\w.-]+)`)

// evaluate returns the value of an expression: "" and "false" are no.
func evaluate(text string, values map[string]string) (string, error) {
	e := &expression{values: values}
	at := 0
	for _, m := range tokens.FindAllStringSubmatchIndex(text, -1) {
		if m[0] != at {
			break
		}
		e.tokens, at = append(e.tokens, text[m[2]:m[3]]), m[1]
	}
	if strings.TrimSpace(text[at:]) != "" {
		return "", fmt.Errorf("cannot read %q", text[at:])
	}
	value := e.or()
	if len(e.tokens) > 0 {
		return "", fmt.Errorf("what is %q?", e.tokens)
	}
	return value, nil
}

func (e *expression) next(want ...string) string {
	for _, token := range want {
		if len(e.tokens) > 0 && e.tokens[0] == token {
			e.tokens = e.tokens[1:]
			return token
		}
	}
	return ""
}

func isTrue(value string) bool { return value != "" && value != "false" }

// or and and have the value of one of their sides.
func (e *expression) or() string {
	left := e.and()
	for e.next("||") != "" {
		if right := e.and(); !isTrue(left) {
			left = right
		}
	}
	return left
}

func (e *expression) and() string {
	left := e.compare()
	for e.next("&&") != "" {
		if right := e.compare(); isTrue(left) {
			left = right
		}
	}
	return left
}

func (e *expression) compare() string {
	left := e.one()
	if operator := e.next("==", "!="); operator != "" {
		return fmt.Sprint(strings.EqualFold(left, e.one()) == (operator == "=="))
	}
	return left
}

func (e *expression) one() string {
	if e.next("(") != "" {
		value := e.or()
		e.next(")")
		return value
	}
	if len(e.tokens) == 0 {
		return ""
	}
	token := e.tokens[0]
	e.tokens = e.tokens[1:]
	if text, ok := strings.CutPrefix(token, "'"); ok {
		return strings.TrimSuffix(text, "'")
	}
	return e.values[token]
}

func TestExpressions(t *testing.T) {
	for text, want := range map[string]string{
		"a": "1", "none": "", "'x'": "x", "a == '1'": "true", "a != '1'": "false", "a == 'A' || b": "B", "b == 'b'": "true",
		"none || b": "B", "a && b": "B", "none && a || b": "B", "a == '2' && b || none": "", "none && (a || b)": "", "(none && a) || b": "B", "a || none && b": "1",
	} {
		got, err := evaluate(text, map[string]string{"a": "1", "b": "B"})
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"f(x)", "!a", "a b", "'x"} {
		_, err := evaluate(text, nil)
		require.Error(t, err, text)
	}
}
