package aws

import "strings"

// serviceOfScope is a service by the name that its signatures have.
func serviceOfScope(name string) string {
	switch name = strings.ToLower(name); name {
	case "monitoring":
		return "cloudwatch"
	case "email":
		return "ses"
	case "elasticloadbalancing":
		return "elbv2"
	case "elasticmapreduce":
		return "emr"
	case "states":
		return "stepfunctions"
	case "execute-api":
		return "apigateway"
	case "cognito-identity", "cognito-idp":
		return name
	case "s3express", "s3-object-lambda", "s3-outposts":
		return "s3"
	case "tagging":
		return "resourcegroupstaggingapi"
	case "bedrock":
		return "bedrock-runtime"
	}
	return name
}

// serviceOfTarget is a service by the prefix of its X-Amz-Target, which is also its name in the RPC
// protocol; "" if it is not known.
func serviceOfTarget(prefix string) string {
	// What stands before the version is the service's: DynamoDB_20120810, Logs_20140328.
	if at := strings.LastIndexByte(prefix, '.'); at >= 0 { // com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101
		prefix = prefix[at+1:]
	}
	name := prefix
	if before, version, is := strings.Cut(name, "_"); is && digits(version) {
		name = before
	}
	for _, t := range targets() {
		if strings.EqualFold(t.prefix, name) {
			return t.service
		}
	}
	return ""
}

// targets are the prefixes that are not the service's own name.
func targets() []struct{ prefix, service string } {
	return []struct{ prefix, service string }{
		{"Kinesis", "kinesis"}, {"DynamoDB", "dynamodb"}, {"DynamoDBStreams", "dynamodbstreams"}, {"AmazonSQS", "sqs"},
		{"AmazonSNS", "sns"}, {"AWSEvents", "events"}, {"Logs", "logs"}, {"AWSStepFunctions", "stepfunctions"},
		{"secretsmanager", "secretsmanager"}, {"AmazonSSM", "ssm"}, {"TrentService", "kms"}, {"Firehose", "firehose"},
		{"AWSCognitoIdentityProviderService", "cognito-idp"}, {"AWSCognitoIdentityService", "cognito-identity"},
		{"AmazonEC2ContainerServiceV20141113", "ecs"}, {"AmazonEC2ContainerRegistry_V20150921", "ecr"},
		{"AWSGlue", "glue"}, {"AmazonAthena", "athena"}, {"SageMaker", "sagemaker"}, {"GraniteServiceVersion20100801", "cloudwatch"},
		{"CertificateManager", "acm"}, {"AWSWAF", "wafv2"}, {"CodeBuild", "codebuild"}, {"CodeCommit", "codecommit"},
		{"CodePipeline", "codepipeline"}, {"CodeDeploy", "codedeploy"}, {"ResourceGroupsTaggingAPI", "resourcegroupstaggingapi"},
		{"Transcribe", "transcribe"}, {"Timestream", "timestream-write"}, {"SimpleWorkflowService", "swf"},
		{"AWSOrganizationsV20161128", "organizations"}, {"StarlingDoveService", "config"}, {"Route53Resolver", "route53resolver"},
		{"Route53AutoNaming_v20170314", "servicediscovery"}, {"CloudTrail", "cloudtrail"}, {"AnyScaleFrontendService", "application-autoscaling"},
		{"AmazonDMSv20160101", "dms"}, {"AmazonMemoryDB", "memorydb"}, {"BaldrApiService", "cloudhsmv2"}, {"Textract", "textract"},
		{"RekognitionService", "rekognition"}, {"Comprehend", "comprehend"}, {"ElasticMapReduce", "emr"}, {"TransferService", "transfer"},
		{"AWSIdentityStore", "identitystore"}, {"SWBExternalService", "sso-admin"}, {"AWSServiceCatalogAPIService", "servicecatalog"},
		{"AWSSupport_20130415", "support"}, {"AWSShield", "shield"}, {"RedshiftData", "redshift-data"}, {"AmazonForecast", "forecast"},
		{"KinesisAnalytics", "kinesisanalyticsv2"}, {"CodeConnections", "codeconnections"}, {"AWSBudgetServiceGateway", "budgets"},
		{"AWSInsightsIndexService", "ce"}, {"FraudDetector", "frauddetector"}, {"AWSSimpleQueueService", "sqs"}, {"ECR", "ecr"},
		{"Lightsail", "lightsail"}, {"OpsWorks", "opsworks"}, {"ServiceQuotasV20190624", "service-quotas"}, {"Keyspaces", "keyspaces"},
		{"KeyspacesService", "keyspaces"}, {"GraniteService", "cloudwatch"}, {"AmazonPersonalize", "personalize"},
	}
}

// serviceOfHost is a service by a label of its endpoint's name; "" if the label is no service's.
func serviceOfHost(label string) string {
	switch label {
	case "s3-accelerate", "s3-website", "s3-control":
		return "s3"
	case "lambda-url":
		return "lambda"
	case "queue": // the legacy queue.amazonaws.com
		return "sqs"
	}
	for _, name := range hostNames() {
		if label == name {
			return serviceOfScope(name)
		}
	}
	return ""
}

// hostNames are the services that a gateway may be asked for by host.
func hostNames() []string {
	return []string{"acm", "apigateway", "athena", "cloudformation", "cloudfront", "cloudtrail", "cloudwatch", "codebuild", "cognito-identity",
		"cognito-idp", "config", "dynamodb", "ec2", "ecr", "ecs", "eks", "elasticache", "elasticloadbalancing", "elasticmapreduce", "email", "es", "events",
		"execute-api", "firehose", "glacier", "glue", "iam", "iot", "kafka", "kinesis", "kinesisanalytics", "kms", "lambda", "logs", "monitoring",
		"opensearch", "organizations", "pipes", "rds", "redshift", "redshift-data", "route53", "s3", "scheduler", "secretsmanager", "ses", "sns", "sqs",
		"ssm", "states", "stepfunctions", "sts", "swf", "tagging", "timestream-write", "transcribe", "transfer"}
}

// isQueryService tells services whose protocol has the operation in a form or query.
func isQueryService(service string) bool {
	switch service {
	case "autoscaling", "cloudformation", "cloudwatch", "docdb", "ec2", "elasticache", "elasticbeanstalk", "elb", "elbv2", "iam", "neptune", "rds",
		"redshift", "ses", "sns", "sqs", "sts":
		return true
	}
	return false
}

// reads tells whether a request changes nothing.
func reads(q Request, method string) bool {
	if q.Operation == "" {
		switch method {
		case "GET", "HEAD", "OPTIONS":
			return true
		}
		return false
	}
	switch q.Operation {
	case "GetSessionToken", "GetFederationToken": // make credentials
		return false
	case "Query", "Scan", "TransactGetItems", "PartiQLSelect":
		return true
	}
	for _, verb := range []string{"Get", "List", "Describe", "BatchGet", "Head", "Lookup", "Search", "Select", "Filter", "Test", "Validate", "Check", "Estimate",
		"Preview", "Simulate", "Decode", "Discover"} {
		if rest, is := strings.CutPrefix(q.Operation, verb); is && (rest == "" || rest[0] >= 'A' && rest[0] <= 'Z') {
			return true
		}
	}
	return false
}
