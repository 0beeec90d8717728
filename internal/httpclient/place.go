package httpclient

import (
	"net/netip"
	"strconv"
	"strings"
)

// A Place is where an address is, as far as it matters who may lead there.
type Place int

const (
	// Public is everywhere else.
	Public Place = iota
	// Private is a private network (RFC 1918, RFC 4193).
	Private
	// LinkLocal is the link, where clouds have their metadata.
	LinkLocal
	// Here is this machine: loopback, and the unspecified address, at which it
	// answers too.
	Here
)

func (p Place) String() string {
	return [...]string{"a public address", "an address of a private network", "a link-local address, as of a cloud's metadata", "an address of this machine"}[p]
}

// nat64 are the prefixes of IPv6 addresses that a translator turns into the IPv4
// address in their last 32 bits (RFC 6052, RFC 8215), and compatible the one that
// was given up (RFC 4291, section 2.5.5.1). In an address of 6to4 the IPv4 address
// follows the first 16 bits (RFC 3056).
var (
	nat64  = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("::/96")}
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// PlaceOf returns where an address is; of one that contains an IPv4 address, where
// that is.
func PlaceOf(a netip.Addr) Place {
	a = a.WithZone("").Unmap()
	switch {
	case a.IsLoopback(), a.IsUnspecified(), a.Is4() && a.As4()[0] == 0:
		return Here
	case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast():
		return LinkLocal
	case a.IsPrivate():
		return Private
	case a.Is6():
		raw := a.As16()
		for _, p := range nat64 {
			if p.Contains(a) {
				return PlaceOf(netip.AddrFrom4([4]byte(raw[12:])))
			}
		}
		if sixTo4.Contains(a) {
			return PlaceOf(netip.AddrFrom4([4]byte(raw[2:6])))
		}
	}
	return Public
}

// PlaceOfHost returns where a host is, without a port, as far as its text shows: a
// name other than localhost is public until it is resolved. One that ends in a number is
// no name, but may be an address in a notation of old, such as 127.1 or 0x7f000001, which
// resolvers take (https://url.spec.whatwg.org/#ends-in-a-number-checker): it is
// taken as this machine.
func PlaceOfHost(host string) Place {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return Here
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return PlaceOf(a)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || last != "" && strings.Trim(last, "0123456789") == "" {
		return Here
	}
	return Public
}
