metadata description = 'One identity for each program, which its Kubernetes service account may use: no password, no key.'

@description('Region of the identities.')
param location string

@description('The programs; each has an identity PREFIX-PROGRAM and a service account of the same name.')
param programs string[]

@description('What the names begin with: the chart\'s full name, which its service accounts begin with too.')
param prefix string

@description('Kubernetes namespace of the release.')
param namespace string

@description('Issuer of the cluster\'s service account tokens.')
param issuer string

resource identities 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = [
  for program in programs: {
    name: '${prefix}-${program}'
    location: location
  }
]

resource credentials 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = [
  for (program, index) in programs: {
    name: 'kubernetes'
    parent: identities[index]
    properties: {
      issuer: issuer
      subject: 'system:serviceaccount:${namespace}:${prefix}-${program}'
      audiences: ['api://AzureADTokenExchange']
    }
  }
]

@description('In the order of the programs: name, client id (for the service account) and principal id (for roles).')
output identities array = [
  for (program, index) in programs: {
    name: identities[index].name
    clientId: identities[index].properties.clientId
    principalId: identities[index].properties.principalId
  }
]
