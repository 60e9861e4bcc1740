metadata description = 'The account and the container of the finished files.'

@description('Region of the account.')
param location string

@description('Name of the account, unique in all of Azure: 3 to 24 lower-case letters and digits.')
@minLength(3)
@maxLength(24)
param name string

@description('How many copies are kept, and where.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param redundancy string

@description('Name of the container.')
param containerName string

@description('After how many days a file is deleted whatever else happens. It must be longer than any report is to be kept.')
@minValue(1)
param deleteAfterDays int

@description('For how many days a deleted file or container can be brought back.')
@minValue(1)
@maxValue(365)
param softDeleteDays int

@description('Principal id of the API, which reads facts of files and signs download links as itself.')
param apiPrincipalId string

@description('Principal id of the operator, which deletes files.')
param operatorPrincipalId string

@description('Principal id of the exporter, which writes files.')
param exporterPrincipalId string

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage
var blobDelegator = 'db58b8e5-c6ad-4a2a-8342-4190687cbf4a'
var blobDataReader = '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
var blobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: name
  location: location
  kind: 'StorageV2'
  sku: {
    name: redundancy
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    allowCrossTenantReplication: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    // clients outside the cluster download by signed links
    publicNetworkAccess: 'Enabled'
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  name: 'default'
  parent: account
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  name: containerName
  parent: blobs
  properties: {
    publicAccess: 'None'
  }
}

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2023-05-01' = {
  name: 'default'
  parent: account
  properties: {
    policy: {
      rules: [
        {
          name: 'delete-old-reports'
          type: 'Lifecycle'
          enabled: true
          definition: {
            filters: {
              blobTypes: ['blockBlob']
              prefixMatch: ['${containerName}/']
            }
            actions: {
              baseBlob: {
                delete: {
                  daysAfterCreationGreaterThan: deleteAfterDays
                }
              }
            }
          }
        }
      ]
    }
  }
  dependsOn: [container]
}

// A user delegation key is the account's, so this one cannot be narrower.
resource apiSigns 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, apiPrincipalId, blobDelegator)
  scope: account
  properties: {
    principalId: apiPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobDelegator)
  }
}

// A link can do no more than who signed it.
resource apiReads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(container.id, apiPrincipalId, blobDataReader)
  scope: container
  properties: {
    principalId: apiPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobDataReader)
  }
}

resource operatorDeletes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(container.id, operatorPrincipalId, blobDataContributor)
  scope: container
  properties: {
    principalId: operatorPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobDataContributor)
  }
}

resource exporterWrites 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(container.id, exporterPrincipalId, blobDataContributor)
  scope: container
  properties: {
    principalId: exporterPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobDataContributor)
  }
}

@description('URL of the account\'s blob service, without a slash at its end.')
output endpoint string = 'https://${split(account.properties.primaryEndpoints.blob, '/')[2]}'

@description('Name of the container.')
output containerName string = container.name
