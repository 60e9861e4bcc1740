metadata description = 'The server of the reports\' database, which knows no passwords.'

@description('Region of the server.')
param location string

@description('Name of the server, unique in all of Azure.')
param name string

@description('Size of the server, such as Standard_D2ds_v5.')
param skuName string

@description('Class of that size.')
@allowed(['Burstable', 'GeneralPurpose', 'MemoryOptimized'])
param skuTier string

@description('Size of the disk in GiB.')
param storageSizeGB int

@description('For how many days a backup is kept, and any moment within them can be restored.')
@minValue(7)
@maxValue(35)
param backupRetentionDays int

@description('Whether a second server stands ready in another zone.')
@allowed(['Disabled', 'SameZone', 'ZoneRedundant'])
param highAvailability string

@description('Object id in Entra of who makes the roles of the four identities.')
param administratorObjectId string

@description('Name in Entra of the same; it is the PostgreSQL role to log in as.')
param administratorName string

@description('What the administrator is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param administratorType string

@description('Address that the cluster\'s connections come from; no other may connect.')
param clusterAddress string

resource server 'Microsoft.DBforPostgreSQL/flexibleServers@2024-08-01' = {
  name: name
  location: location
  sku: {
    name: skuName
    tier: skuTier
  }
  properties: {
    version: '16'
    authConfig: {
      activeDirectoryAuth: 'Enabled'
      passwordAuth: 'Disabled'
      tenantId: tenant().tenantId
    }
    storage: {
      storageSizeGB: storageSizeGB
      autoGrow: 'Enabled'
    }
    backup: {
      backupRetentionDays: backupRetentionDays
      geoRedundantBackup: 'Disabled'
    }
    highAvailability: {
      mode: highAvailability
    }
    network: {
      publicNetworkAccess: 'Enabled'
    }
  }
}

resource administrator 'Microsoft.DBforPostgreSQL/flexibleServers/administrators@2024-08-01' = {
  name: administratorObjectId
  parent: server
  properties: {
    principalName: administratorName
    principalType: administratorType
    tenantId: tenant().tenantId
  }
}

// The database itself is made by its administrator, who then owns it and may grant in it (README.md).
// The server refuses two changes at once.
resource cluster 'Microsoft.DBforPostgreSQL/flexibleServers/firewallRules@2024-08-01' = {
  name: 'cluster'
  parent: server
  properties: {
    startIpAddress: clusterAddress
    endIpAddress: clusterAddress
  }
  dependsOn: [administrator]
}

@description('Host name of the server.')
output hostName string = server.properties.fullyQualifiedDomainName
