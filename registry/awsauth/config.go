package awsauth

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
)

// LoadConfig returns a configuration for clients of the AWS SDK, with the
// credentials that the package comment describes. It reads files and the
// environment; credentials are asked for on first use, and renewed by
// themselves.
//
// The error is an [*Error] of kind [ErrOptions], [ErrConfig], or, when the
// job's variables for ID tokens are there and wrong, [ErrIDToken]. Credentials
// that cannot be had are an error of their first use, of kind [ErrIDToken],
// [ErrRole] or [ErrNoCredentials], wrapped in what the SDK says.
func LoadConfig(ctx context.Context, options *Options) (aws.Config, error) {
	s, err := newSettings(options)
	if err != nil {
		return aws.Config{}, err
	}
	return s.load(ctx)
}

func (s *settings) load(ctx context.Context) (aws.Config, error) {
	load := []func(*config.LoadOptions) error{config.WithLogger(s.sdkLogger())}
	if s.Region != "" {
		load = append(load, config.WithRegion(s.Region))
	}
	if s.Transport != nil {
		load = append(load, config.WithHTTPClient(&http.Client{Transport: s.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // an ID token could go with it
		}}))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		if ctx.Err() != nil {
			return aws.Config{}, context.Cause(ctx)
		}
		return aws.Config{}, &Error{
			Op: "load the AWS configuration", Kind: ErrConfig, Err: s.secrets.Error(err),
			Advice: "check the variables that begin with AWS_, and the files ~/.aws/config and ~/.aws/credentials",
		}
	}
	const permission = "give the job `permissions: id-token: write`"
	if s.RoleARN == "" {
		cfg.Credentials = &chain{s, cfg.Credentials, "no role was given to assume"}
		return cfg, nil
	}
	tokens, missing, err := s.findIDTokens()
	if err != nil {
		return aws.Config{}, err
	}
	if tokens == nil {
		s.Logger.Warn("the role is not assumed, other AWS credentials are looked for", "role", s.RoleARN, "reason", missing, "todo", permission)
		cfg.Credentials = &chain{s, cfg.Credentials, "role " + s.RoleARN + " is not assumed, because " + missing + ": " + permission}
		return cfg, nil
	}
	cfg.Credentials = newRole(s, cfg, tokens)
	return cfg, nil
}

// sdkLogger returns the settings' logger in the form that the SDK takes.
func (s *settings) sdkLogger() logging.Logger {
	return logging.LoggerFunc(func(class logging.Classification, format string, v ...any) {
		log := s.Logger.Debug
		if class == logging.Warn {
			log = s.Logger.Warn
		}
		log("AWS SDK", "message", s.secrets.Text(fmt.Sprintf(format, v...)))
	})
}
