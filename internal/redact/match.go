package redact

import (
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// enough is how many bytes from its beginning on stand for a secret, twice as many if they
// are letters alone: a text may have been cut in the middle of one.
const enough = 8

// mayBegin reports whether a character is at a place in a text, in any form.
func mayBegin(text string, at int, char string) bool {
	if first := text[at]; lower(first) != lower(char[0]) && first < utf8.RuneSelf && strings.IndexByte(`%&+\`, first) < 0 {
		return false // soon
	}
	return len(appendEnds(nil, text, at, char)) > 0
}

// match returns where a secret ends that begins at a place in a text, in any form;
// -1 if none does. It compares as many characters as are left.
func match(text string, at int, of form, left *int) int {
	secret := of.text
	ends := []int{at} // after so much of the secret
	for matched := 0; matched < len(secret); {
		_, n := utf8.DecodeRuneInString(secret[matched:])
		var next []int
		if *left -= len(ends); *left <= 0 {
			return -1
		}
		for _, i := range ends {
			next = appendEnds(next, text, i, secret[matched:matched+n])
		}
		if len(next) == 0 {
			if of.whole || matched < enough || matched < 2*enough && isWord(secret[:matched]) {
				return -1
			}
			break
		}
		slices.Sort(next)
		next = slices.Compact(next)
		ends, matched = next[:min(len(next), 32)], matched+n // more there are in hostile texts only
	}
	return slices.Max(ends)
}

// isWord reports whether a text has letters alone, as many words of a message.
func isWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) })
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}

// appendEnds appends where a character ends that begins at i, for each form in
// which it may be there.
func appendEnds(ends []int, text string, i int, char string) []int {
	if i >= len(text) {
		return ends
	}
	if n := len(char); len(text)-i >= n && strings.EqualFold(text[i:i+n], char) {
		ends = append(ends, i+n)
	}
	switch text[i] {
	case '+':
		if char == " " {
			ends = append(ends, i+1)
		}
	case '%':
		ends = appendEscaped(ends, text, i, char, percent)
	case '&':
		if n := strings.IndexByte(text[i:min(len(text), i+10)], ';') + 1; n > 0 && html.UnescapeString(text[i:i+n]) == char {
			ends = append(ends, i+n)
		}
	case '\\':
		ends = appendQuoted(ends, text, i, char)
	}
	return ends
}

// appendQuoted is appendEnds for a character behind backslashes. Each level of
// quoting doubles them.
func appendQuoted(ends []int, text string, i int, char string) []int {
	ends = appendEscaped(ends, text, i, char, backslash)
	for begin := i; i < len(text) && text[i] == '\\' && i < begin+16; {
		if i++; char == `\` {
			ends = append(ends, i)
		}
	}
	rest := text[i:]
	if strings.HasPrefix(rest, char) {
		ends = append(ends, i+len(char))
	}
	if rest == "" {
		return ends
	}
	if at := strings.IndexByte("abfnrtv", rest[0]); at >= 0 && char == "\a\b\f\n\r\t\v"[at:at+1] {
		ends = append(ends, i+1)
	}
	if r, n := unicodeEscape(rest); n > 0 {
		if r2, m := unicodeEscape(strings.TrimLeft(rest[n:], `\`)); m > 0 && utf16.IsSurrogate(r) {
			r, n = utf16.DecodeRune(r, r2), n+m+(len(rest[n:])-len(strings.TrimLeft(rest[n:], `\`)))
		}
		if strings.EqualFold(string(r), char) {
			ends = append(ends, i+n)
		}
	}
	return ends
}

// unicodeEscape reads the escape u0000 or U00000000 and returns its length; 0 if
// there is none.
func unicodeEscape(s string) (rune, int) {
	digits := 4
	if strings.HasPrefix(s, "U") {
		digits = 8
	}
	if len(s) <= digits || lower(s[0]) != 'u' {
		return 0, 0
	}
	v, err := strconv.ParseUint(s[1:1+digits], 16, 32)
	if err != nil || v > utf8.MaxRune {
		return 0, 0
	}
	return rune(v), 1 + digits
}

// appendEscaped is appendEnds for a character whose bytes are each written as two
// hexadecimal digits behind a prefix, of one length or another.
func appendEscaped(ends []int, text string, i int, char string, prefixes func(string) []int) []int {
	if char == "" {
		return append(ends, i)
	}
	for _, n := range prefixes(text[i:]) {
		if len(text) < i+n+2 {
			continue
		}
		v, err := strconv.ParseUint(text[i+n:i+n+2], 16, 8)
		if err == nil && (lower(byte(v)) == lower(char[0]) || v == '+' && char == " ") {
			ends = appendEscaped(ends, text, i+n+2, char[1:], prefixes)
		}
	}
	return ends
}

// percent returns the lengths of the prefixes of a URL's escape. Each level escapes
// the sign once more.
func percent(s string) (lengths []int) {
	if strings.HasPrefix(s, "%") {
		lengths = append(lengths, 1)
		for n := 1; n < 16 && strings.HasPrefix(s[n:], "25"); n += 2 {
			lengths = append(lengths, n+2)
		}
	}
	return lengths
}

// backslash returns the length of the prefix of the escape \x00.
func backslash(s string) []int {
	s = s[:min(len(s), 18)]
	rest := strings.TrimLeft(s, `\`)
	if len(rest) == len(s) || !strings.HasPrefix(rest, "x") {
		return nil
	}
	return []int{len(s) - len(rest) + 1}
}
