package awsauth

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestHosts(t *testing.T) {
	const account = "308535385114"
	for text, want := range map[string]host{
		"308535385114.dkr.ecr.us-east-1.amazonaws.com":                    {account: account, region: "us-east-1"},
		"308535385114.dkr.ecr.us-east-1.amazonaws.com:443":                {account: account, region: "us-east-1"},
		"308535385114.DKR.ecr.US-east-1.amazonaws.com":                    {account: account, region: "us-east-1"},
		"308535385114.dkr.ecr-fips.us-gov-west-1.amazonaws.com":           {account: account, region: "us-gov-west-1", fips: true},
		"308535385114.dkr.ecr.cn-north-1.amazonaws.com.cn":                {account: account, region: "cn-north-1"},
		"308535385114.dkr.ecr.eusc-de-east-1.amazonaws.eu":                {account: account, region: "eusc-de-east-1"},
		"308535385114.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":               {account: account, region: "us-isob-east-1"},
		"308535385114.dkr.ecr.us-iso-east-1.c2s.ic.gov":                   {account: account, region: "us-iso-east-1"},
		"308535385114.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":              {account: account, region: "eu-isoe-west-1"},
		"308535385114.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":             {account: account, region: "us-isof-south-1"},
		"308535385114.dkr-ecr.us-west-2.on.aws":                           {account: account, region: "us-west-2", dualStack: true},
		"308535385114.dkr-ecr-fips.us-west-2.on.aws":                      {account: account, region: "us-west-2", dualStack: true, fips: true},
		"308535385114.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn": {account: account, region: "cn-northwest-1", dualStack: true},
		"public.ecr.aws":     {public: true},
		"public.ecr.aws:443": {public: true},
		"ecr-public.aws.com": {public: true},
	} {
		got, ok := parseHost(text)
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", "ghcr.io", "index.docker.io", "127.0.0.1:5000", "amazonaws.com", "x.public.ecr.aws", "public.ecr.aws.example.com", "public.ecr.aws:5000",
		"308535385114.dkr.ecr.us-east-1.amazonaws.com.example.com",
		"308535385114.dkr.ecr.us-east-1.amazonaws.com.",
		"308535385114.dkr.ecr.us-east-1.amazonaws.com:8443",
		"example.com.308535385114.dkr.ecr.us-east-1.amazonaws.com",
		"x308535385114.dkr.ecr.us-east-1.amazonaws.com",
		"30853538511.dkr.ecr.us-east-1.amazonaws.com", "3085353851144.dkr.ecr.us-east-1.amazonaws.com",
		"308535385114.dkr.ecr.us-east-1xamazonaws.com", "308535385114.dkr.ecr.us-east-1.amazonawsxcom",
		"308535385114.dkrxecr.us-east-1.amazonaws.com",
		"308535385114.dkr.ecr..amazonaws.com", "308535385114.dkr.ecr.-.amazonaws.com", "308535385114.dkr.ecr.a.b.amazonaws.com",
		"308535385114.dkr.ecr.us-east-1-.amazonaws.com", "308535385114.dkr.ecr.us-east-1@evil.amazonaws.com",
		"308535385114.dkr-ecr.us-east-1.amazonaws.com", "308535385114.dkr.ecr.us-east-1.on.aws", // each form has its own domains
		"308535385114.dkr.ecr.us-east-1.amazonaws.com\n", "308535385114.dkr.ecr.us-east-1.amazonaws.com/path",
		"https://308535385114.dkr.ecr.us-east-1.amazonaws.com",
	} {
		_, ok := parseHost(text)
		assert.False(t, ok, text)
	}
}

// Every host that is accepted as a registry of ECR is in a domain of AWS, and its
// account and region cannot add anything else to a request.
func FuzzParseHost(f *testing.F) {
	for _, seed := range []string{
		"308535385114.dkr.ecr.us-east-1.amazonaws.com", "308535385114.dkr-ecr-fips.us-west-2.on.aws", "public.ecr.aws", "ecr-public.aws.com:443",
		"308535385114.dkr.ecr.us-east-1.amazonaws.com.example.com", "ghcr.io", "308535385114.DKR.ECR.us-east-1.amazonaws.eu:443", "\u212a",
	} {
		f.Add(seed)
	}
	domains := []string{
		"public.ecr.aws", "ecr-public.aws.com", ".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".on.aws",
		".on.amazonwebservices.com.cn", ".sc2s.sgov.gov", ".c2s.ic.gov", ".cloud.adc-e.uk", ".csp.hci.ic.gov",
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, ok := parseHost(text)
		if !ok {
			return
		}
		lower := strings.TrimSuffix(strings.ToLower(text), ":443")
		in := false
		for _, d := range domains {
			in = in || strings.HasSuffix(lower, d)
		}
		assert.True(t, in, text)
		if h.public {
			assert.Equal(t, host{public: true}, h)
			return
		}
		assert.Len(t, h.account, 12)
		assert.Empty(t, strings.Trim(h.account, "0123456789"))
		assert.Regexp(t, regions(), h.region)
		assert.True(t, strings.HasPrefix(lower, h.account+".dkr"))
	})
}
