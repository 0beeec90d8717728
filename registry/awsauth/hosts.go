package awsauth

import (
	"regexp"
	"strings"
)

// A host is a registry of ECR, as its name describes it.
type host struct {
	public          bool   // ECR Public; all below are empty
	account, region string // of a private registry
	fips, dualStack bool
}

// privateHosts are the host names of private registries, as
// https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html,
// https://docs.aws.amazon.com/general/latest/gr/ecr.html and
// https://github.com/awslabs/amazon-ecr-credential-helper have them:
//
//	123456789012.dkr.ecr.us-east-1.amazonaws.com           also .com.cn, .eu, and the isolated partitions
//	123456789012.dkr.ecr-fips.us-east-1.amazonaws.com
//	123456789012.dkr-ecr.us-east-1.on.aws                  dual-stack, also on.amazonwebservices.com.cn
//	123456789012.dkr-ecr-fips.us-east-1.on.aws
//
// The whole name must match: the owner of
// 123456789012.dkr.ecr.us-east-1.amazonaws.com.example must get no password.
var privateHosts = regexp.MustCompile(`^(\d{12})\.dkr([.-])ecr(-fips)?\.([a-z]+(?:-[a-z0-9]+)+)\.` +
	`(?:(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)|(on\.aws|on\.amazonwebservices\.com\.cn))$`)

// parseHost returns what the host of a reference describes; false if it is none of
// ECR's. The host may be in capitals, and have the port of HTTPS.
func parseHost(name string) (host, bool) {
	name = strings.TrimSuffix(strings.ToLower(name), ":443")
	if name == "public.ecr.aws" || name == "ecr-public.aws.com" {
		return host{public: true}, true
	}
	m := privateHosts.FindStringSubmatch(name)
	if m == nil {
		return host{}, false
	}
	h := host{account: m[1], region: m[4], fips: m[3] != "", dualStack: m[2] == "-"}
	return h, h.dualStack == (m[6] != "")
}

// String is for log lines and errors.
func (h host) String() string {
	if h.public {
		return "ECR Public"
	}
	return "ECR of account " + h.account + " in " + h.region
}
