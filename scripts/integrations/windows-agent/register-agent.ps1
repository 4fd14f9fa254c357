# SPDX-License-Identifier: MPL-2.0

<#
.SYNOPSIS
Registers and starts Vault Agent as a Windows service that installs the sensor.

.DESCRIPTION
Copies the folder of this script to C:\ProgramData\mdi, which only SYSTEM and
administrators can access. The folder must contain agent.hcl, access-key.ctmpl, install-sensor.ps1,
role-id, secret-id and the unpacked sensor package. Run it as an administrator, from a
folder that only administrators can write. Running it again only starts the service.

.PARAMETER Vault
Full path of vault.exe, in a folder that only administrators can write.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Vault
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$folder = 'C:\ProgramData\mdi'
$service = 'MdiVaultAgent'

# The folder has the secret ID, for a moment the key, and a script that runs as SYSTEM.
# Every user may write to ProgramData: an existing folder could be another user's, so this
# creates one, and checks that it is empty once its access is restricted. SIDs name the
# accounts, since Windows translates their names.
function New-ProtectedFolder {
    New-Item -ItemType Directory -Path $folder | Out-Null
    icacls.exe $folder /inheritance:r /grant:r '*S-1-5-18:(OI)(CI)F' '*S-1-5-32-544:(OI)(CI)F' | Out-Null
    if ($LASTEXITCODE -ne 0) {
        throw "The access to $folder could not be restricted."
    }
    if (Get-ChildItem -LiteralPath $folder -Force) {
        throw "$folder is not empty. Remove it first."
    }
}

if (-not (Get-Service -Name $service -ErrorAction SilentlyContinue)) {
    New-ProtectedFolder
    Copy-Item -Path (Join-Path $PSScriptRoot '*') -Destination $folder -Recurse
    New-Service -Name $service -DisplayName 'Vault Agent for Defender for Identity' -StartupType Automatic `
        -BinaryPathName "`"$Vault`" agent -config=`"$folder\agent.hcl`" -log-file=`"$folder\agent.log`"" | Out-Null
}
Start-Service -Name $service
